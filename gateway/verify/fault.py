"""What a verification finds: faults, which are exit code 1, and notes, which are not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What does not hold. `index` counts in the log, `number` over all leaves; None: not known.

    `kind` is one word or two for programs, `words` are for people, `file` is below the ledger.
    """

    log: str
    kind: str
    words: str
    file: str | None = None
    index: int | None = None
    number: int | None = None

    def __str__(self) -> str:
        places = []
        if self.file:
            places.append(self.file)
        if self.index is not None:
            places.append(f"entry {self.index}")
        if self.number is not None:
            places.append(f"leaf {self.number}")
        return f"{self.log}: {', '.join(places) or 'as a whole'}: {self.kind}: {self.words}"


class Found(Exception):
    """A fault, on its way up."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclass
class LogReport:
    """One log: `entries` were recomputed, `signed` and `witnessed` of them are under signatures."""

    log: str
    origin: str
    entries: int = 0
    signed: int = 0
    witnessed: int = 0
    root: str = ""
    witnesses: dict[str, int] = field(default_factory=dict)
    fault: Fault | None = None


@dataclass
class Report:
    """A whole verification. `faults`: the first of each log and of the order."""

    folder: str
    leaves: int = 0
    logs: list[LogReport] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bodies: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        return {"holds": self.holds, **asdict(self)}
