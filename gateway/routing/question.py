"""A request that is only asked about: for traces, trials and tests; nothing is sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.condition import ABSENT
from gateway.exchange import ANONYMOUS, Caller, Context
from gateway.protocol import v2
from gateway.protocol.dialect import Dialect
from gateway.protocol.message import Message
from gateway.routing.body import NoDocument, read_document


@dataclass(frozen=True, slots=True)
class Question:
    """What `condition.Asked` wants. `first`: one value a header, names in lower case."""

    method: str = "POST"
    path: str = "/"
    first: Mapping[bytes, bytes] = field(default_factory=dict)
    caller: Caller = ANONYMOUS
    context: Context = Context()
    body: bytes = b""
    dialect: Dialect = v2
    hold: int = 1024**2

    def message(self) -> Message:
        """The body with its headers, as readers take it."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in self.first.items()
        }
        return Message(self.body, headers)

    def document(self) -> Any:
        try:
            return read_document(self.dialect, self.message(), self.hold)
        except NoDocument:
            return ABSENT
