"""A decided exchange as it is judged: explained, and put into its windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.explain.worker import Asked
from gateway.monitor.window import Decision
from gateway.monitor.worker import decisions_of
from gateway.table import Model, Version


@dataclass(slots=True)
class Inference:
    """A decided exchange as it is judged; `why`: the reason for which it cannot be."""

    model: Model
    version: Version
    rows: dict[str, list[Any]] = field(default_factory=dict)
    groups: list[dict[str, str]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    outcomes: list[str | None] = field(default_factory=list)
    given: bool = True
    why: str | None = None
    keys: tuple[int, ...] = ()
    """Numbers of the subjects' keys that the body is under: what is said is sealed under them."""

    def asked(self) -> Asked:
        return Asked(self.model, self.version, self.rows, self.scores, self.outcomes, self.given)

    def decisions(self, number: int, leaf: dict[str, Any]) -> list[Decision]:
        assert self.version.card is not None
        return decisions_of(
            self.version.card, number, leaf["record"], leaf["decisions"], self.rows, self.groups
        )


def is_decided(leaf: dict[str, Any]) -> bool:
    """Whether a leaf is an inference that a version answered."""
    record = leaf["record"]
    return (
        leaf["kind"] == "exchange"
        and record.get("operation") == "infer"
        and record["status"] == 200
        and record.get("version") is not None
    )
