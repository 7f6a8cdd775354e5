"""A rule whose alerts take a share back: which, each by a leaf, and people may outrule it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.clock import SystemClock
from gateway.governor import Governor
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.writer import open_journal
from gateway.ledger.log import LedgerReader
from gateway.revision.retreat import retreats, take_share
from gateway.settings import LedgerSettings

TEXT = """
state: ./state
keys: ./keys
models:
  m:
    versions: {v1: {upstream: 'http://127.0.0.1:9'}, v2: {upstream: 'http://127.0.0.1:9'},
               v3: {upstream: 'http://127.0.0.1:9'}}
    rules:
      - name: pilot
        when: {header: {x-pilot: '1'}}
        split: {v1: 50%, v2: 50%}
      - name: all
        split: {v1: 75%, v2: 20%, v3: 5%}
        rollback_on: [quality/, score]
"""
SECOND = 10**9


def alert(version: str, cause: str, state: str = "open", at: int = 0) -> dict[str, Any]:
    return {"id": f"m/{version}:{cause}", "model": "m", "version": version, "cause": cause,
            "state": state, "severity": "warning", "updated_at": at}  # fmt: skip


class Site:
    """A governor without its sockets; the analyst's journal is written as the analyst does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told = folder, 0
        (folder / "headworks.yaml").write_text(TEXT)
        self.begin()

    def begin(self) -> None:
        ledger = LedgerSettings(checkpoint="50ms")
        state, keys = self.folder / "state", self.folder / "keys"
        self.governor = Governor(
            self.folder / "headworks.yaml", {}, state, keys, SystemClock(), {}, ledger
        )
        self.governor.started = _Same()
        self.governor.sealer.notary.begin(0)
        told = self.governor._publish("start", "the file at the start")
        assert told["problems"] == []
        self.governor.rollouts.resume()
        self.turn()

    def end(self) -> None:
        self.governor.rollouts.close()
        self.governor.sealer.close()

    def turn(self) -> None:
        for _ in range(3):
            self.governor._turn()

    def say(self, *alerts: dict[str, Any]) -> None:
        async def write() -> None:
            folder = JournalFolder(self.folder / "state", self.folder / "keys", "analyst")
            journal = await open_journal(
                folder, SystemClock(), segment_bytes=1 << 20, stall_s=60.0, queue_bytes=1 << 24,
                on_failure=pytest.fail,
            )  # fmt: skip
            for told in alerts:
                self.told += 1
                header = {"format": 1, "id": f"{self.told}.0", "of": self.told, "ordinal": 0,
                          "at": self.told, "kind": "alert", "model": "m", "event": "opened",
                          "alert": told}  # fmt: skip
                await journal.append(header, record.encode_parts({}, record.EMPTY, record.EMPTY))
            await journal.close()

        asyncio.run(write())
        self.turn()

    def split(self, rule: int = 1) -> dict[str, int]:
        _, document = self.governor.revisions.current()
        return dict(document["models"]["m"]["rules"][rule]["split"])

    def moves(self) -> list[str]:
        """Reasons of the leaves of revisions that an alert made, the oldest first."""
        reader = LedgerReader(self.folder / "state", 0)
        leaves = [orjson.loads(text) for _, text in reader.read(10_000)]
        reader.close()
        return [leaf["record"]["reason"] for leaf in leaves
                if leaf["kind"] == "revision" and leaf["record"]["origin"] == "alert"]  # fmt: skip


class _Same(dict[str, Any]):
    """The settings of a start that no reload changes."""

    def __missing__(self, key: str) -> None:
        return None


@pytest.fixture
def site(tmp_path: Path) -> Any:
    made = Site(tmp_path)
    yield made
    made.end()


def test_a_share_goes_back_and_the_leaf_names_the_alert(site: Site) -> None:
    """Of that version in that rule; other versions and rules keep theirs; once, also after a
    restart; the file as it is brings nothing back."""
    assert site.moves() == []
    site.say(alert("v2", "quality/x/stuck"))
    assert site.split() == {"v1": 950_000, "v2": 0, "v3": 50_000}
    assert site.split(0) == {"v1": 500_000, "v2": 500_000}
    told = "rule all of model m: v2 back to v1: alert m/v2:quality/x/stuck"
    assert site.moves() == [told]
    site.end()
    site.begin()
    assert (site.split()["v2"], site.moves()) == (0, [told])


@pytest.mark.parametrize(
    "other",
    [
        alert("v1", "quality/x/stuck"),
        alert("v2", "feature/x"),
        alert("v2", "score") | {"model": "n"},
        alert("v2", "score", "resolved"),
    ],
)
def test_other_alerts_move_nothing(site: Site, other: dict[str, Any]) -> None:
    """One of the stable version, of a cause or a model that is not named, and one that is over."""
    site.say(other)
    assert site.moves() == []
    assert site.split()["v2"] == 200_000


def test_a_person_may_bring_it_back(site: Site) -> None:
    """The revert stays, after a restart too; the alert that ends and begins anew counts again."""
    first = site.governor.revisions.current()[0]
    site.say(alert("v2", "score"))
    site.governor.revisions.revert(first, author="ana", reason="v2 is right, the alert is not")
    site.turn()
    assert (site.split()["v2"], len(site.moves())) == (200_000, 1)
    site.end()
    site.begin()
    assert (site.split()["v2"], len(site.moves())) == (200_000, 1)
    later = SystemClock().wall() + SECOND
    site.say(alert("v2", "score", "resolved", later), alert("v2", "score", "open", later))
    assert (site.split()["v2"], len(site.moves())) == (0, 2)


def test_a_rule_that_a_rollout_has_is_the_rollouts() -> None:
    """It listens by its own file."""
    rule = {"name": "all", "split": [["v1", None], ["v2", 1]], "rollback_on": ["score"],
            "rollout": {"name": "r"}}  # fmt: skip
    asked = {"m/v2:score": alert("v2", "score")}
    assert list(retreats({"models": {"m": {"rules": [rule]}}}, asked)) == []
    (one,) = retreats({"models": {"m": {"rules": [rule | {"rollout": None}]}}}, asked)
    assert (one.version, one.stable) == ("v2", "v1")


def test_a_share_that_the_first_takes_by_itself_stays_untold() -> None:
    """`{v1: , v2: 10%}` says no share of v1, and says none afterwards."""
    rule = {"split": [["v1", None], ["v2", 100_000], ["v3", 1]]}
    take_share(rule, "v2")
    assert rule["split"] == [["v1", None], ["v2", 0], ["v3", 1]]
