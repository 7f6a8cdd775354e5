"""What the data path and the readers need of a wire format: one module has it all. Pure.

`locate` reads paths, `error_body` says our own refusals as the caller's client expects them,
`read_columns` and `read_scores` bring bodies into the canonical form (`row.py`). Readers raise
Unreadable and nothing else; they run off the data path, on bodies as they were sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.card import Card
from gateway.protocol.message import Message
from gateway.protocol.row import Columns, Mapped


@dataclass(frozen=True, slots=True)
class Target:
    """What a path asks for. `model` None: the path does not say. `operation`: a name of the
    dialect's `METHODS`, or the rest of the path."""

    model: str | None
    version: str | None
    operation: str


class Dialect(Protocol):
    """A module of this folder.

    `METHODS`: the operations that records name, and the method each takes ("": any).
    `INFERENCES`: the operations that ask a model for an answer, and may be copied to shadows.
    """

    NAME: str
    METHODS: Mapping[str, str]
    INFERENCES: frozenset[str]
    ERROR_TYPE: bytes

    def locate(self, path: str) -> Target | None:
        """None: no path of this protocol. `path` is raw, still quoted."""

    def error_body(self, code: str, status: int, message: str) -> bytes: ...

    def asked(self, body: bytes) -> tuple[str | None, str | None]:
        """Model and version that a body names, where the path does not."""

    def not_copied(self, request: bytes, idempotent: bool) -> str | None:
        """Why a shadow must not get this request; None: it may."""

    def count_rows(self, mapping: Mapped, request: Message) -> int: ...

    def read_columns(self, card: Card, mapping: Mapped, request: Message) -> Columns: ...

    def read_scores(self, card: Card, mapping: Mapped, response: Message) -> list[float]: ...

    def read_rows(self, response: Message) -> list[Any]:
        """All that an answer says, one JSON value a row: for comparing answers without a card."""


SHARED_MEMORY = b"shared_memory_region"


def segments(path: str) -> list[str] | None:
    """The path's parts, quoted ones told by what they mean; None: one is empty or dots.

    An upstream may read `%69nfer`, `./infer` or `/infer` as `infer`: an inference that is not
    recorded as one would be neither explained nor watched.
    """
    from urllib.parse import unquote

    parts = [unquote(part) for part in path[1:].removesuffix("/").split("/")]
    if any(part in ("", ".", "..") for part in parts):
        return None
    return parts
