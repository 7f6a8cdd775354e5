"""What blocks count: everybody for limits, nobody twice, no single person, and the same again."""

from __future__ import annotations

import pytest
from site_of_rollouts import BEN, CONFIG, FILE, SECOND, Answer, Site

from gateway.exchange import exchange_id
from gateway.rollout.observation import Observation, Pair
from gateway.rollout.recomputation import recompute
from gateway.rollout.standing import standing
from gateway.rollout.tally import PEOPLE_LEAST, Open, Tally
from gateway.routing.choice import choose

LONG = FILE.replace("min: 3s", "min: 90s")


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.loop.run_until_complete(made.journal.close())
    made.loop.close()


def seen(at: int, groups=(), unit: str | None = None, side="canary") -> Observation:
    return Observation(
        "x", at, side, "v2", side, unit, False, False, False, True, 2000, groups,
        tuple(True for _ in groups), tuple(0.5 for _ in groups),
    )  # fmt: skip


@pytest.mark.parametrize(("weight", "holdout"), [("90%", "1%"), ("100%", "1%"), ("100%", "0%")])
def test_limits_see_all_of_the_canary(site, weight, holdout):
    """However wide it is, and with nobody to compare it with; a quarter that fails ends it."""
    steps = f"steps:\n  - {{weight: {weight}, min: 90s, require: []}}\n"
    if weight == "100%":
        steps = "steps:\n  - {weight: 100%, bake: 90s}\n"
    else:
        steps += "  - {weight: 100%, bake: 90s}\n"
    site.start(f"holdout: {holdout}\n{FILE.partition('steps:')[0]}{steps}")
    site.serve(3)
    answered = sum(version == "v2" for _, version, _ in site.answered)
    counted = sum(one["block"]["canary"]["exchanges"] for one in site.leaves("evidence"))
    assert counted > 0.8 * answered > 80
    told = standing(site.attempt, site.clock.now, {})["exposure"]
    assert ("limits alone" in told) == (holdout == "0%")
    site.serve(4, lambda version, n: Answer(500 if version == "v2" and n % 4 == 0 else 200), 60)
    last = site.leaves("rollout")[-1]
    assert (last["phase"], "answers failed" in last["why"]) == ("rolled_back", True)
    assert recompute(site.state, site.keys, "trees").problems == []


def test_what_ends_late_in_an_empty_block_is_counted_again(site):
    """A block without traffic has no leaf; what comes for it later is in the next one, in time."""
    site.start(LONG)
    site.serve(2)
    site.serve(2, a_second=0)
    before = exchanges(site)
    for _ in range(30):
        append_late(site, 1)
    site.serve(3, a_second=0)
    assert exchanges(site) > before
    site.serve(2)
    report = recompute(site.state, site.keys, "trees")
    assert (report.problems, report.counts) == ([], report.blocks)
    assert sum(one["block"].get("late", 0) for one in site.leaves("evidence")[1:]) == 0


def exchanges(site: Site) -> int:
    return sum(arm["exchanges"] for arm in site.attempt.judging.counts().values())


def append_late(site: Site, seconds: int) -> None:
    """An exchange that began a while ago and ends now, of a unit of its own."""
    site.units += 1
    model, rule = site.rule()
    at = site.clock.now - seconds * SECOND - SECOND // 2
    identity = exchange_id(at)
    chosen = choose(model, rule, {b"x-applicant": f"unit-{site.units}".encode()}, identity)

    async def append() -> None:
        site.journal.mark()
        await site.journal.append(*site._record(chosen, Answer(), at, identity))

    site.loop.run_until_complete(append())


def test_an_empty_block_is_not_late():
    """Late is what missed its leaf; a restart is where the tally was."""
    tally = Tally(SECOND, None, 9)
    tally.take(seen(10 * SECOND))
    tally.close(10)
    tally.look(11)
    tally.look(12)
    assert tally.next == 13
    tally.take(seen(11 * SECOND))
    tally.take(seen(10 * SECOND))
    block = tally.peek(13, "r", 1, 0)
    assert (block.canary.exchanges, block.late) == (2, 1)
    again = Tally(SECOND, None, 0)
    again.restore(tally.to_json("r", 1))
    assert again.peek(13, "r", 1, 0) == block
    again.close(13)
    assert again.is_empty(20)


def test_a_draft_that_waited_is_no_time_without_traffic(site):
    """An hour and more until somebody approved: no leaf of it, and no hold when people come."""
    text = FILE.replace("after: 1h", "after: 60s").replace("min: 3s", "min: 90s")
    site.start(text.replace("steps:\n", "steps:\n  - {approval: sre}\n"))
    site.clock.now += 4000 * SECOND
    site.turn()
    site.steward.approve("trees", BEN)
    site.serve(3)
    assert site.stage.phase == "running"
    assert len(site.leaves("evidence")) <= 4


def told_groups(site: Site) -> dict[str, list[dict[str, int]]]:
    found: dict[str, list[dict[str, int]]] = {}
    for one in site.leaves("evidence"):
        for arm in ("canary", "control"):
            for key, group in one["block"].get(arm, {}).get("groups", {}).items():
                found.setdefault(key, []).append(group)
    return found


def test_no_leaf_tells_of_a_single_person(site):
    """A rare group waits until both arms have twenty of it, over a restart too; then it is told."""
    guard = "guards: [{name: fairness, by: race, min_per_group: 40}]"
    site.start(LONG.replace("guards: [errors]", guard).replace("weight: 10%", "weight: 40%"))

    def some(version: str, n: int) -> Answer:
        return Answer(race="black" if n % 5 == 0 else "white", score=n % 10 / 10)

    for _ in range(3):
        site.serve(2, some, 100)
        site.die()
        site.open()
    told = told_groups(site)
    assert {"race=black", "race=white"} == set(told)
    for groups in told.values():
        assert min(min(one["units"], one["decisions"]) for one in groups) >= PEOPLE_LEAST
    assert 0 < len(told["race=black"]) == len(told["race=white"]) < len(site.leaves("evidence"))
    arms = site.attempt.judging
    waiting = site.attempt.tally.withheld
    for arm, left in ((arms.canary, waiting.canary), (arms.control, waiting.control)):
        whole = sum(one.units for one in arm.groups.values())
        assert whole + sum(group[0] for group in left.groups.values()) == arm.units
    assert recompute(site.state, site.keys, "trees").problems == []


def test_groups_are_told_together():
    """A bet compares groups of one block: one that comes alone would be compared with nobody."""
    tally = Tally(SECOND, None, 0)
    told = []
    for number in range(1, 40):
        for which in range(6):
            pair = Pair(number * SECOND, None, True, False, None, 1, 0, 0,
                        ("race=black" if which == 0 else "race=white",), 1)  # fmt: skip
            tally.take_eligible(number * SECOND - 3 * SECOND)
            tally.take_pair(pair)
        groups = tally.peek(number, "r", 1, 0).pairs.groups
        told += [{key: one.decisions for key, one in groups.items()}] if groups else []
        tally.close(number)
    assert told == [{"race=black": 20, "race=white": 100}]


def test_groups_that_no_guard_asks_for_are_not_counted(site):
    """A monitored key is no reason to write down who came."""
    site.start(LONG)
    site.serve(3, a_second=200)
    assert told_groups(site) == {}


def test_groups_withheld_are_bounded():
    """However many there are: a block stays one that can be read."""
    tally = Tally(SECOND, None, 0)
    for number in range(40):
        for which in range(5):
            tally.take(seen(number * SECOND, ((f"k={number * 5 + which}",),)))
    block = tally.peek(99, "r", 1, 0)
    assert block.canary.units == 200
    assert len(tally._due(99).canary.groups) <= 64
    tally.close(99)
    assert isinstance(tally.withheld, Open)
    assert sum(group[0] for group in tally.withheld.canary.groups.values()) == 200


@pytest.mark.parametrize(("wanted", "sequences"), [("20%", 0), ("60%", 0), ("60%", 40)])
def test_each_copy_is_eligible_and_no_other(tmp_path, wanted, sequences):
    """As the data path draws: the greater of the rule's share and the rollout's, by sequence."""
    rule = f"split: {{v1: 100%}}, shadow: {{v2: {wanted}}}"
    site = Site(tmp_path, CONFIG.replace("split: {v1: 100%}", rule))
    site.sequences = sequences
    site.start(LONG.replace("steps:\n", "steps:\n  - {shadow: 30%, min: 90s}\n"))
    site.serve(2, a_second=60)
    site.serve(5, a_second=0)
    pairs = site.attempt.judging.pairs()
    assert pairs == {"eligible": site.copies, "compared": site.copies}
    assert 0 < site.copies < 120
    site.loop.run_until_complete(site.journal.close())
