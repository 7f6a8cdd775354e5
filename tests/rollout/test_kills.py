"""A governor that is killed at each single write goes on exactly where it was."""

from __future__ import annotations

import os

import pytest
from site_of_rollouts import BEN, FILE, Answer, Site

CALLS = ("pwrite", "write", "fdatasync", "fsync", "ftruncate", "replace", "unlink")


def die_behind(writes: int) -> None:
    """From now on this process ends at the call that follows so many."""
    left = [writes]
    for name in CALLS:
        original = getattr(os, name)

        def dying(*arguments, _original=original, **named):
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return _original(*arguments, **named)

        setattr(os, name, dying)


class Mortal(Site):
    """Its governor is killed in each turn, behind `writes(turn)` writes, and comes back."""

    writes = staticmethod(lambda turn: None)
    turns = 0
    killed = 0

    def doomed(self, act) -> None:
        """`act` in a governor that is killed on the way; then another one, that lives."""
        writes = self.writes(self.turns)
        self.turns += 1
        self.die()
        if writes is not None:
            child = os.fork()
            if child == 0:
                try:
                    die_behind(writes)
                    self.open()
                    act()
                finally:
                    os._exit(0)
            self.killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        self.open()

    def turn(self) -> None:
        self.doomed(super().turn)
        super().turn()


def told(site: Site) -> tuple[object, ...]:
    """What there is of it in the end, but for what is random, and numbers of leaves."""
    attempt = site.attempt.to_json()
    for name in ("moves", "published", "created", "evidence"):
        del attempt[name]
    kept = ("number", "move", "phase", "step", "why", "by", "block", "verdicts")
    done = [one for one in site.leaves("rollout") if one["event"] == "move"]
    moves = [tuple(one[name] for name in kept) for one in done]
    blocks = [one["block"] for one in site.leaves("evidence")]
    return moves, blocks, attempt, site.entry(), site.split()


def live(site: Site, sick: bool) -> tuple[object, ...]:
    site.start()
    site.serve(2)
    if sick:
        site.serve(3, lambda version, n: Answer(500 if version == "v2" else 200), 400)
    else:
        site.serve(12)
    found = told(site)
    site.loop.run_until_complete(site.journal.close())
    site.loop.close()
    return found


@pytest.mark.parametrize(
    ("sick", "starts"),
    [
        (True, (29,)),
        pytest.param(True, (0, 13, 41), marks=pytest.mark.long),
        pytest.param(False, (0, 13, 29), marks=pytest.mark.long),
    ],
)
def test_a_governor_killed_at_any_write_is_where_it_was(tmp_path, sick, starts):
    """Every turn of a life is begun by a governor that dies in it, each time at another write:
    moves, blocks, table and state are those of a governor that never died."""
    (tmp_path / "whole").mkdir()
    expected = live(Site(tmp_path / "whole"), sick)
    assert expected[0][-1][2] == ("rolled_back" if sick else "promoted")
    for first in starts:
        folder = tmp_path / str(first)
        folder.mkdir()
        site = Mortal(folder)
        site.writes = lambda turn, first=first: (first + 7 * turn) % 61
        assert expected == live(site, sick)
        assert site.killed > 5


@pytest.mark.parametrize(
    "gates", ["", pytest.param("  - {approval: sre}\n", marks=pytest.mark.long)]
)
def test_a_start_that_was_cut_off_is_completed(tmp_path, gates):
    """Killed at any write of `start` or of the approval: nothing was started, or it runs."""
    text = FILE.replace("steps:\n", f"steps:\n{gates}")
    started = set()
    for writes in range(0, 60, 7):
        folder = tmp_path / str(writes)
        folder.mkdir()
        site = Mortal(folder)
        site.writes = lambda turn, writes=writes: writes if turn == 0 else None
        if gates:
            site.start(text)
            site.doomed(lambda site=site: site.steward.approve("trees", BEN))
        else:
            site.doomed(lambda site=site: site.start(text))
        attempt = site.rollouts.attempts.get("trees")
        phase = attempt.stage.phase if attempt else None
        started.add(phase)
        assert (site.entry() is not None) == (phase == "running"), writes
        site.loop.run_until_complete(site.journal.close())
        site.loop.close()
    assert started == {"draft" if gates else None, "running"}
