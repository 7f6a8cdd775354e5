"""The seam of those who read recorded bodies: features, scores, completions of any protocol. Pure.

Whatever is wrong with a body or with the reading of it is Unreadable: it is sealed as such, and
nobody who follows the ledger ever stops at one exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.card import Card
from gateway.protocol import generation, openai
from gateway.protocol.dialect import Dialect
from gateway.protocol.dialects import dialect_of
from gateway.protocol.message import Message
from gateway.protocol.row import NO_MAPPING, Columns, Mapped
from gateway.protocol.tensor import BadScores, Fault, Opaque, Unreadable
from gateway.table import Model

T = TypeVar("T")
Pairs = Iterable[Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Reader:
    """Of one exchange. Bodies as recorded, with their kept headers as (name, value) pairs."""

    dialect: Dialect
    mapping: Mapped

    def columns(self, card: Card, body: bytes, headers: Pairs) -> Columns:
        """Feature name -> one value a row (None: missing), in card order."""
        message = Message.of(body, headers)
        return _guarded(lambda: self.dialect.read_columns(card, self.mapping, message))

    def scores(self, card: Card, body: bytes, headers: Pairs) -> list[float]:
        """One finite score a row."""
        message = Message.of(body, headers)
        return _guarded(lambda: self.dialect.read_scores(card, self.mapping, message))

    def faults(
        self, card: Card, body: bytes, headers: Pairs, rows: int
    ) -> list[tuple[float | None, Fault | None]]:
        """By row, the score or what is wrong, of an answer that cannot be read as a whole. What
        is no answer of the card's kind at all lacks the score of each row; Opaque is none."""
        try:
            found: list[tuple[float | None, Fault | None]]
            found = [(score, None) for score in self.scores(card, body, headers)]
        except BadScores as error:
            found = list(zip(error.scores, error.faults))
        except Opaque:
            raise
        except Unreadable:
            found = []
        lacking: list[tuple[float | None, Fault | None]] = [(None, "missing")]
        return (found + lacking * max(0, rows - len(found)))[:rows]

    def rows(self, body: bytes, headers: Pairs) -> list[Any]:
        """All that an answer says, one JSON value a row."""
        message = Message.of(body, headers)
        return _guarded(lambda: self.dialect.read_rows(message))

    def completion(self, operation: object, body: bytes, headers: Pairs) -> dict[str, Any] | None:
        """Usage, finish and error of a generated answer; None: it is not of that kind."""
        if self.dialect is not openai or operation not in openai.INFERENCES:
            return None
        return openai.read_completion(Message.of(body, headers))

    def asked(self, operation: object, body: bytes, headers: Pairs) -> dict[str, Any]:
        """The settings that a generation was asked with; {}: it is not of that kind."""
        if self.dialect is not openai or operation not in openai.INFERENCES:
            return {}
        return _guarded(lambda: generation.read_asked(Message.of(body, headers)))

    def logprobs(self, body: bytes, headers: Pairs) -> dict[str, Any] | None:
        """Of a generated answer, where it gives any."""
        return _guarded(lambda: generation.read_logprobs(Message.of(body, headers)))


def reader_of(record: Mapping[str, Any], model: Model | None) -> Reader:
    """For a record's header: by the protocol it came in, with the mapping of its model."""
    return Reader(dialect_of(record.get("protocol")), model.mapping if model else NO_MAPPING)


def _guarded(read: Callable[[], T]) -> T:
    try:
        return read()
    except Unreadable:
        raise
    except Exception as error:  # a reader's own mistake concerns one exchange, never the next
        raise Unreadable(f"{type(error).__name__}: {error}"[:200]) from error
