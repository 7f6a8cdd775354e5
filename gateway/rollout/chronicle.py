"""What the ledger says of rollouts: their leaves, read from the root log's files alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from gateway.clock import isoformat
from gateway.ledger.entries import EntryReader, Gone, LedgerDamaged
from gateway.ledger.names import ROOT
from gateway.ledger.signer import size_of

SHOWN = ("rollout", "attempt", "event", "by", "why", "move", "phase", "step", "number", "what",
         "digest", "held", "verdicts", "from", "to", "model", "rule")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """A leaf of a rollout; `index`: its place in the root log."""

    index: int
    kind: str
    record: dict[str, Any]

    def told(self) -> dict[str, Any]:
        """As people see it: without the file."""
        shown = {key: self.record[key] for key in SHOWN if key in self.record}
        return {"index": self.index, "at": isoformat(self.record["at"]), **shown}


class Chronicle:
    def __init__(self, state: Path) -> None:
        self.state = state

    def leaves(self, name: str, attempt: int | None = None) -> Iterator[Told]:
        """Moves and evidence of a rollout in the ledger's order; `attempt` None: of all."""
        marks = (b'"kind":"rollout"', b'"kind":"evidence"')
        named = b'"rollout":' + orjson.dumps(name)
        for index, entry in self.entries():
            if named not in entry or not any(mark in entry for mark in marks):
                continue
            leaf = orjson.loads(entry)
            record = leaf["record"]
            of = record["block"] if leaf["kind"] == "evidence" else record
            if of["rollout"] == name and attempt in (None, of["attempt"]):
                yield Told(index, leaf["kind"], record)

    def entries(self) -> Iterator[tuple[int, bytes]]:
        """To the end, be it signed yet or not; LedgerDamaged where what was signed is missing."""
        root = self.state / "ledger" / ROOT
        reader = EntryReader(root)
        try:
            for index in count():
                try:
                    entry = reader.read(index)
                except (LedgerDamaged, Gone):
                    if index < size_of(root / "checkpoint"):
                        raise
                    return
                yield index, entry
        finally:
            reader.close()

    def events(self, name: str) -> Iterator[Told]:
        """What was done and by whom, without the blocks."""
        return (leaf for leaf in self.leaves(name) if leaf.kind == "rollout")
