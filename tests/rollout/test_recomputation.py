"""`headworks rollout verify` on ledgers that somebody changed: what is missing is found, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from site_of_rollouts import ANA, BEN, FILE, Site

from gateway.rollout.chronicle import Chronicle, Told
from gateway.rollout.recomputation import recompute

GATED = FILE.replace("  - {weight: 50%", "  - {approval: sre, expires: 20s}\n  - {weight: 50%")
Change = Callable[[dict[str, Any]], bool]


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """A rollout that came to everybody, with an approval on its way."""
    made = Site(tmp_path_factory.mktemp("gated"))
    made.start(GATED)
    made.serve(6)
    made.steward.approve("trees", BEN)
    made.serve(12)
    assert made.stage.phase == "promoted"
    made.loop.run_until_complete(made.journal.close())
    return made


def problems(site: Site, monkeypatch: pytest.MonkeyPatch, change: Change) -> str:
    """What verify says of a ledger of which each leaf was changed; False: it is gone."""
    leaves = Chronicle.leaves

    def changed(self: Chronicle, name: str, attempt: int | None = None):
        for leaf in leaves(self, name, attempt):
            if change(leaf.record):
                yield Told(leaf.index, leaf.kind, leaf.record)

    monkeypatch.setattr(Chronicle, "leaves", changed)
    return "\n".join(recompute(site.state, None, "trees").problems)


def with_value(event: str, **values: Any) -> Change:
    def change(record: dict[str, Any]) -> bool:
        if record.get("event") == event:
            record.update(values)
        return True

    return change


def test_an_honest_ledger_has_no_problems(gated):
    """The approval, the person's move after it, each verdict."""
    report = recompute(gated.state, gated.keys, "trees")
    assert (report.problems, report.phase, report.counts) == ([], "promoted", report.blocks)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.get("move") != "next" or record["by"] != "controller",
         "asked for next"),
        (lambda record: record.get("event") != "approved", "step 2 waits for a sre"),
        (with_value("approved", by="ana"), "by the rollout's author"),
        (with_value("approved", roles=["auditor"]), "ben was no sre"),
        (with_value("approved", digest="0" * 64), "of another file"),
        (with_value("approved", step=0), "step 1 waits for nobody"),
        (with_value("move", verdicts=[]), "0 verdicts, and there are 1"),
        (with_value("move", move="leap"), "cannot be read: ValueError"),
    ],
)  # fmt: skip
def test_what_is_missing_or_forged_is_found(gated, monkeypatch, change, words):
    """A move that nobody made, an approval that nobody may give, verdicts left out, nonsense."""
    assert words in problems(gated, monkeypatch, change)


def test_a_second_person_is_looked_for(tmp_path, monkeypatch):
    """Where the file wants two, one who asks and approves is found."""
    site = Site(tmp_path)
    site.start("second_person: true\n" + FILE)
    site.steward.approve("trees", BEN)
    site.serve(3)
    site.loop.run_until_complete(site.journal.close())
    assert recompute(site.state, site.keys, "trees").problems == []

    def alone(record: dict[str, Any]) -> bool:
        if record.get("by") == "ben":
            record["by"] = ANA.name
        return True

    assert "wants a second person" in problems(site, monkeypatch, alone)


def test_nobody_begins_before_the_first_approval(tmp_path, monkeypatch):
    """A rollout whose first step is an approval, which the ledger then lacks."""
    site = Site(tmp_path)
    site.start(FILE.replace("steps:\n", "steps:\n  - {approval: sre, expires: 20s}\n"))
    site.steward.approve("trees", BEN)
    site.serve(1)
    site.loop.run_until_complete(site.journal.close())
    assert recompute(site.state, site.keys, "trees").problems == []
    said = problems(site, monkeypatch, lambda record: record.get("event") != "approved")
    assert "step 1 waits for a sre" in said
