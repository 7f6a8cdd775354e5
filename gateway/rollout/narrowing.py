"""Narrowing that is published and not yet recorded: one small file a rollout.

    state/rollouts/narrowed/<name>.json      the move, as its leaf will have it

Who takes exposure back writes down what he does, publishes, and is done: in one second, with or
without a governor. The governor turns what lies here into leaves, now or when it is back, and a
move that was recorded already is known by its id. So a crash between any two of these steps leaves
exposure narrow, and the ledger complete in the end.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from gateway.artifacts import Artifacts
from gateway.disk import sync_folder, write_durably
from gateway.revision.merge import Document
from gateway.revision.revisions import Revisions, end_rollout
from gateway.table import TableStore

Told = dict[str, Any]


class Narrowings:
    def __init__(self, state: Path) -> None:
        self.folder = state / "rollouts" / "narrowed"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, move: Told) -> None:
        path = self.folder / f"{move['rollout']}.json"
        write_durably(path, orjson.dumps(move, option=orjson.OPT_SORT_KEYS))

    def waiting(self) -> Iterator[Told]:
        for path in sorted(self.folder.glob("*.json")):
            yield orjson.loads(path.read_bytes())

    def done(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        sync_folder(self.folder)


def take_back(revisions: Revisions, move: Told) -> bool:
    """Publish that all of the rule goes to `from` again, unless it is so; whether it was not."""
    _, document = revisions.current()
    held = _held(document, move)
    if held is None or (held["name"], held["attempt"]) != (move["rollout"], move["attempt"]):
        return False
    revisions.change(
        lambda document: end_rollout(document, move["model"], move["rule"], move["from"]),
        author=move["by"], reason=f"rollout {move['rollout']}: {move['move']}: {move['why']}",
        origin="rollout",
    )  # fmt: skip
    return True


def abort_offline(
    state: Path, name: str, author: str, why: str, steady_ns: int, wall_ns: Callable[[], int]
) -> dict[str, Any]:
    """Everybody on `from` again, without a governor; the returning one records it. The move.

    LookupError: no rollout of this name has a rule.
    """
    revisions = Revisions(TableStore(state), Artifacts(state), wall_ns)
    _, document = revisions.current()
    model, rule, entry = find_rollout(document, name)
    move = {
        "name": name, "rollout": name, "attempt": entry["attempt"], "event": "move",
        "id": str(uuid.uuid4()), "at": steady_ns, "move": "abort", "phase": "aborted", "why": why,
        "by": author, "held": None, "block": None, "evidence": None, "verdicts": [],
        "model": model, "rule": rule, "from": entry["from"], "to": entry["to"], "offline": True,
    }  # fmt: skip
    Narrowings(state).write(move)
    take_back(revisions, move)
    return move


def _held(document: Document, move: Told) -> dict[str, Any] | None:
    """The rollout that has the rule; None: none has, or the rule is gone."""
    for rule in document["models"].get(move["model"], {"rules": ()})["rules"]:
        if rule["name"] == move["rule"]:
            found: dict[str, Any] | None = rule.get("rollout")
            return found
    return None


def find_rollout(document: Document, name: str) -> tuple[str, str, dict[str, Any]]:
    """Model, rule and entry of a rollout that has a rule. LookupError where none has this name."""
    for model, settings in document["models"].items():
        for rule in settings["rules"]:
            if (entry := rule.get("rollout")) is not None and entry["name"] == name:
                return model, rule["name"], entry
    raise LookupError(f"no rollout {name[:80]!r} has a rule")
