"""What waits for a commit: frames to be written, and those who asked for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.clock import Clock, isoformat
from gateway.errors import JournalUnavailable
from gateway.journal import record
from gateway.journal.receipt import Receipt, ReceiptKey
from gateway.journal.segment import Kind

NO_PARTS = record.encode_parts({}, record.EMPTY, record.EMPTY)


@dataclass(slots=True)
class Waiter:
    """Who is told when a record may be relied on. Without an id: nobody outside."""

    future: asyncio.Future[Receipt | None]
    id: str
    signed: tuple[str, int, str] | None  # what a receipt says, if one is wanted
    receipt: Receipt | None = None


@dataclass(slots=True)
class Pending:
    """A frame to be written; `sealed` is still in clear."""

    kind: Kind
    text: bytes
    sealed: bytes
    waiter: Waiter | None
    durable: bool


def ids_of(waiters: list[Waiter]) -> list[str]:
    return [waiter.id for waiter in waiters if waiter.id]


def withheld(identity: str) -> Pending:
    """A record that says: no answer was given under this id."""
    text = record.encode_header({"format": 1, "id": identity, "kind": "withheld"})
    return Pending(Kind.RECORD, text, NO_PARTS, None, True)


def resolve(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        if not waiter.future.done():
            waiter.future.set_result(waiter.receipt)


def reject(waiters: list[Waiter], error: JournalUnavailable) -> None:
    for waiter in waiters:
        if not waiter.future.done():
            waiter.future.set_exception(error)
            waiter.future.exception()  # a waiter may have left: its error is no surprise


def introduction(key: ReceiptKey, worker: str, clock: Clock) -> Pending:
    told = {
        "format": 1, "kind": "receipt_key", "id": key.id, "worker": worker,
        "public": key.public.hex(), "at": clock.steady(), "wall": isoformat(clock.wall()),
    }  # fmt: skip
    return Pending(Kind.RECORD, record.encode_header(told), NO_PARTS, None, True)
