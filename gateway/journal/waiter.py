"""What waits for a commit: frames to be written, and those who asked for them."""

from __future__ import annotations

import asyncio

from gateway.clock import Clock, isoformat
from gateway.errors import JournalUnavailable
from gateway.journal import record
from gateway.journal.receipt import Receipt, ReceiptKey
from gateway.journal.segment import Kind

NO_PARTS = record.encode_parts({}, record.EMPTY, record.EMPTY)


class Pending:
    """A frame to be written, and who is told when it may be relied on; nobody, without a `future`.
    `sealed` is still in clear; `signed` is what a receipt says, if one is wanted."""

    __slots__ = ("durable", "future", "id", "kind", "receipt", "sealed", "signed", "text")

    def __init__(
        self, kind: Kind, text: bytes, sealed: bytes, durable: bool = True, identity: str = "",
        future: asyncio.Future[Receipt | None] | None = None,
        signed: tuple[str, int, str] | None = None,
    ) -> None:  # fmt: skip
        """Without an identity: nobody outside waits."""
        self.kind, self.text, self.sealed = kind, text, sealed
        self.durable, self.id = durable, identity
        self.future, self.signed = future, signed
        self.receipt: Receipt | None = None


def awaited(pending: list[Pending]) -> list[Pending]:
    return [each for each in pending if each.future is not None]


def ids_of(waiters: list[Pending]) -> list[str]:
    return [waiter.id for waiter in waiters if waiter.id]


def withheld(identity: str) -> Pending:
    """A record that says: no answer was given under this id."""
    text = record.encode_header({"format": 1, "id": identity, "kind": "withheld"})
    return Pending(Kind.RECORD, text, NO_PARTS)


def resolve(waiters: list[Pending]) -> None:
    for waiter in waiters:
        future = waiter.future
        if future is not None and not future.done():
            future.set_result(waiter.receipt)


def reject(waiters: list[Pending], error: JournalUnavailable) -> None:
    for waiter in waiters:
        future = waiter.future
        if future is not None and not future.done():
            future.set_exception(error)
            future.exception()  # a waiter may have left: its error is no surprise


def introduction(key: ReceiptKey, worker: str, clock: Clock) -> Pending:
    told = {
        "format": 1, "kind": "receipt_key", "id": key.id, "worker": worker,
        "public": key.public.hex(), "at": clock.steady(), "wall": isoformat(clock.wall()),
    }  # fmt: skip
    return Pending(Kind.RECORD, record.encode_header(told), NO_PARTS)
