"""The judge: three words, each for its reason; the same from the same blocks, however replayed."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from traffic import SECOND, arm, block, blocks

from gateway.rollout.block import ArmCounts, Block, PairCounts
from gateway.rollout.guard import Plan, alphas, judge, readings
from gateway.rollout.guardsettings import JudgeSettings
from gateway.rollout.judging import Judging
from gateway.rollout.rolloutsettings import RolloutSettings

EVERY = [
    "errors", "latency_p95", "latency_p99", "disagreement", "flips", "score_shift", "accuracy",
    "tokens", {"name": "fairness", "by": "race"},
    {"name": "shadow_fairness", "metric": "positive_rate_gap", "worse_than": "+1pp", "by": "race",
     "phase": "shadow", "on_fail": "hold"},
    {"name": "noise", "metric": "disagree", "max": "1%", "corrected": True},
    {"name": "shadow_accuracy", "metric": "label_correct", "worse_than": "-1pp", "phase": "shadow"},
    {"name": "events", "metric": "bad_ratio", "worse_than": "+0pp", "independent": True},
    {"name": "mean", "metric": "latency", "stat": "mean", "worse_than": "x1.1"},
    {"name": "psi", "metric": "score", "stat": "psi_to_reference", "worse_than": "+0.1"},
]  # fmt: skip
FORMATS = Path(__file__).parents[1] / "formats"


def plan(*guards, **rest):
    return Plan(JudgeSettings.model_validate({"guards": guards, **rest}))


def folded(which, told, state=None):
    """The state after all blocks, each judgement, and when each guard first said which word."""
    judgements, first = [], {}
    for one in told:
        state, judgement = judge(which, state, one)
        judgements.append(judgement)
        for verdict in judgement.verdicts:
            if verdict.word != "undecided":
                first.setdefault((verdict.guard, verdict.word), one.number)
    return state, judgements, first


def words(judgement):
    return {verdict.guard: verdict.word for verdict in judgement.verdicts}


WRONG = {
    "errors": {"canary": {"bad": 0.03}},
    "events": {"canary": {"bad": 0.02}},
    "latency_p95": {"canary": {"slower": 1.4}},
    "latency_p99": {"canary": {"slower": 1.8}},
    "mean": {"canary": {"slower": 1.3}},
    "score_shift": {"canary": {"shift": 0.08}},
    "psi": {"canary": {"shift": 0.15}},
    "fairness": {"canary": {"favourable": (0.6, 0.45)}},
    "accuracy": {"canary": {"wrong": 0.2}},
    "disagreement": {"paired": {"disagree": 0.05}},
    "flips": {"paired": {"flips": 0.03}},
    "shadow_fairness": {"paired": {"lost": (0.01, 0.25)}},
    "noise": {"paired": {"noise": (0.08, 0.02)}},
    "shadow_accuracy": {"paired": {"only": (0.1, 0.03)}},
}


NAMED = {one if isinstance(one, str) else one["name"]: one for one in EVERY}
RELATED = {"latency_p99": {"latency_p95"}, "mean": {"latency_p95"}, "events": {"errors"}}


@pytest.mark.parametrize("name", WRONG)
def test_each_guard_finds_what_it_is_for(name):
    """A version that is wrong in one way is called worse by the guard of that, in 40 minutes."""
    others = {"errors", "latency_p95", "disagreement"} - {name}
    which = plan(NAMED[name], *sorted(others))
    _, _, first = folded(which, blocks(4, 240, **WRONG[name]))
    worse = {guard for guard, word in first if word == "worse"}
    assert name in worse
    assert worse <= {name} | RELATED.get(name, set())


def test_equal_versions_become_safe():
    """None is called worse; those that can be shown safe in an hour and a half are."""
    _, judgements, first = folded(
        plan(*EVERY), blocks(12, 500, {"units": 250}, {"units": 250}, {"disagree": 0.004})
    )
    assert [] == [guard for guard, word in first if word == "worse"]
    safe = {guard for guard, word in words(judgements[-1]).items() if word == "safe"}
    assert {"errors", "latency_p95", "latency_p99", "disagreement", "tokens"} <= safe


SIX = {"rollout": "r", "model": "m", "rule": "all", "from": "v1", "to": "v2",
       "steps": ["shadow 2m", "5% 2m", "50% 2m", "100% 2m"]}  # fmt: skip


def test_six_lines_are_shown_safe_in_the_time_they_say():
    """100 requests a second, hardly an error: each guard is safe a minute after its last
    step's `min` at most; before there was an edition it took over an hour."""
    for seed in range(5):
        told = [replace(one, canary=ArmCounts(), control=ArmCounts())
                for one in blocks(seed, 12, paired={"units": 1000})]  # fmt: skip
        for start, count, units in ((12, 12, 50), (24, 18, 500)):
            arms = {"units": units, "bad": 1e-4}
            told += [replace(one, pairs=PairCounts())
                     for one in blocks(seed, count, arms, arms, start=start)]  # fmt: skip
        settings = RolloutSettings.model_validate(SIX)
        judgements = folded(Plan(settings), told)[1]
        assert words(judgements[11])["disagreement"] == "safe"
        assert {"safe"} == set(words(judgements[-1]).values())
    before = folded(Plan(settings, edition=1), told)[1]
    assert {"undecided"} == {words(before[-1])[name] for name in ("errors", "disagreement")}


def test_undecided_says_what_is_missing():
    """Too few units, too few of a group, no reference yet: each in words."""
    settings = plan("errors", "disagreement", {"name": "fairness", "by": "race"}, "score_shift")
    _, judgements, _ = folded(settings, blocks(1, 7, {"bad": 0.9}, paired={"disagree": 1.0}))
    why = {verdict.guard: verdict.why for verdict in judgements[-1].verdicts}
    assert "of 200 units in each arm" in why["errors"]
    assert "of 200 pairs" in why["disagreement"]
    assert why["fairness"].startswith("two groups of race with 300 decisions are wanted, seen:")
    assert "of 1000 scores" in why["score_shift"]
    assert {"undecided"} == set(words(judgements[-1]).values())


def test_warmup_is_no_evidence():
    """A canary that fails in its first minute only is not judged by that, but limits are."""
    told = [*blocks(1, 6, {"bad": 0.9}), *blocks(2, 200, start=6)]
    _, judgements, first = folded(plan("errors", "latency_p95"), told)
    assert ("errors", "worse") not in first
    assert "rollback" == judgements[1].limits[0].on_fail
    state, *_ = folded(plan("errors"), told[:6])
    assert (0, 0) == state.guards[0].units
    state, *_ = folded(plan("errors", evidence={"warmup": "0s"}), told[:6])
    assert min(state.guards[0].units) > 400


def test_warmup_begins_with_the_canary_s_first_exchange():
    """Hours of shadow before do not warm a canary up."""
    told = [block(n, control=ArmCounts(exchanges=9, units=9)) for n in range(100)]
    told += blocks(3, 6, {"bad": 0.9}, start=100)
    state, *_ = folded(plan("errors"), told)
    assert (0, 0) == state.guards[0].units
    assert 1000 * SECOND == state.arms_since


def test_a_warmup_is_named():
    """Of pairs from the first pair on, of arms from the canary's first exchange; then what is
    still missing is counted."""
    quiet = [block(n) for n in range(3)]
    told = [replace(one, canary=ArmCounts(), control=ArmCounts()) for one in blocks(3, 7, start=3)]
    which = plan("errors", "disagreement")
    why = [one.verdicts[1].why for one in folded(which, [*quiet, *told])[1]]
    words = "warm-up, {} s more: 60 s from the first pair on are no evidence"
    assert why[2:9] == ["0 of 200 pairs", *(words.format(left) for left in range(50, -1, -10))]
    assert "of 200 pairs" in why[9]
    arms = [one.verdicts[0].why for one in folded(which, blocks(3, 2, start=1))[1]]
    assert arms[1] == "warm-up, 40 s more: 60 s from the canary's first exchange on are no evidence"


def test_replay_from_a_saved_state_is_the_same():
    """A state that went through JSON in the middle ends in the same state, bit for bit."""
    told = blocks(5, 60, {"bad": 0.02, "shift": 0.02}, paired={"disagree": 0.03})
    told = [*told[:20], *(replace(one, step=1) for one in told[20:])]
    which = plan(*EVERY)
    whole, judgements, _ = folded(which, told)
    half, *_ = folded(which, told[:31])
    half = which.read_state(orjson.loads(orjson.dumps(which.state_to_json(half))))
    resumed, rest, _ = folded(which, told[31:], half)
    assert whole == resumed
    assert judgements[31:] == rest
    with pytest.raises(ValueError, match="not of these guards"):
        plan("errors").read_state(which.state_to_json(half))


def test_blocks_come_in_order_and_of_one_attempt():
    """A block twice, an older one, or of another attempt is a mistake of the caller."""
    which, told = plan("errors"), blocks(5, 3)
    state, _ = judge(which, None, told[1])
    with pytest.raises(ValueError, match="block 1 does not come after block 1"):
        judge(which, state, told[1])
    with pytest.raises(ValueError, match="block of mortgage-v2#2, not of mortgage-v2#1"):
        judge(which, state, replace(told[2], attempt=2))


def swapped(one: Block) -> Block:
    p = one.pairs
    return replace(
        one, canary=one.control, control=one.canary,
        pairs=replace(p, n10=p.n01, n01=p.n10, only_primary_right=p.only_shadow_right,
                      only_shadow_right=p.only_primary_right),
    )  # fmt: skip


def test_without_margins_swapped_arms_are_mirrored():
    """What the proof rests on: swapping the arms turns every bet's sign and nothing else."""
    guards = [
        {"name": "e", "metric": "bad_ratio", "worse_than": "+0pp"},
        {"name": "l", "metric": "latency", "stat": "p95", "worse_than": "x1"},
        {"name": "t", "metric": "tokens", "worse_than": "x1"},
        {"name": "a", "metric": "label_correct", "worse_than": "-0pp"},
    ]
    which = plan(*guards)
    told = blocks(8, 60, {"units": 37}, {"units": 52})
    one, *_ = folded(which, told)
    other, *_ = folded(which, [swapped(each) for each in told])
    for place in range(len(guards)):
        here, there = one.guards[place], other.guards[place]
        assert here.windows == there.windows > 5
        assert here.scale == pytest.approx(there.scale, rel=1e-12)
        assert here.paired.s == pytest.approx(-there.paired.s, rel=1e-9, abs=1e-12)
        assert here.paired.v == pytest.approx(there.paired.v, rel=1e-9)
        assert here.paired.up == there.paired.moved - there.paired.up


def test_alpha_is_spent_once():
    """Parts sum to alpha: what is asked for, twice as much for critical, a quarter for shares of
    pairs, the rest alike. A shadow takes less than a tenth from errors and latency."""
    guards = plan("errors", "latency_p95", "disagreement").settings.guards
    assert (0.16 / 13, 0.08 / 13, 0.02 / 13) == pytest.approx(alphas(guards, 0.02))
    assert (0.01, 0.005, 0.005) == pytest.approx(alphas(guards, 0.02, edition=1))
    alone = plan("errors", "latency_p95").settings.guards
    assert alphas(guards, 0.02)[0] > 0.9 * alphas(alone, 0.02)[0]
    assert (0.02,) == alphas(plan("flips").settings.guards, 0.02)
    guards = plan("errors", {"name": "accuracy", "share_of_alpha": 0.4}, "tokens").settings.guards
    assert (0.008, 0.008, 0.004) == pytest.approx(alphas(guards, 0.02))
    verdict = folded(plan("errors", "tokens"), blocks(1, 1))[1][0].verdicts[0]
    assert (75, 20) == pytest.approx((verdict.need_worse, verdict.need_safe))


def test_worse_stays_and_safe_must_hold():
    """Worse is for good; safe goes when the evidence for it has gone."""
    many = {"units": 400}
    good = blocks(2, 300, many, many)
    bad = blocks(3, 60, {"units": 400, "bad": 0.2}, many, start=300)
    bad = [replace(one, step=1) for one in bad]
    which = plan({"name": "errors", "worse_than": "+1pp"})
    _, judgements, first = folded(which, [*good, *bad])
    assert ("errors", "safe") in first
    assert "safe" == words(judgements[299])["errors"]
    assert "worse" == words(judgements[-1])["errors"]
    after = [replace(one, step=1) for one in blocks(4, 200, start=360)]
    late = folded(which, [*bad, *after])[1]
    assert {"worse"} == {words(one)["errors"] for one in late[-200:]}


def test_a_fault_of_a_later_step_is_found_soon():
    """Well for two hours at one step, then slow under more load: found within half an hour."""
    good = blocks(2, 720)
    slow = [replace(one, step=1) for one in blocks(3, 180, {"slower": 1.35}, start=720)]
    _, _, first = folded(plan("errors", "latency_p95"), [*good, *slow])
    assert ("latency_p95", "safe") in first
    assert first["latency_p95", "worse"] < 900


def test_a_group_that_loses_an_advantage_is_no_finding():
    """Parity reached at the expense of the group that was ahead is not called worse."""
    told = blocks(6, 300, {"favourable": (0.55, 0.55)}, {"favourable": (0.65, 0.5)},
                  {"lost": (0.2, 0.01), "favourable": (0.75, 0.6)})  # fmt: skip
    _, _, first = folded(plan(*EVERY), told)
    assert set() == {("fairness", "worse"), ("shadow_fairness", "worse")} & first.keys()


def test_the_group_that_is_hurt_is_named():
    """The verdict says which group, and by how much."""
    which = plan({"name": "fairness", "by": "race"})
    state, *_ = folded(which, blocks(6, 200, {"favourable": (0.6, 0.45)}))
    (reading,) = readings(which, state)
    assert ("worse", "race=b") == (reading.word, reading.group)
    low, high = reading.interval
    assert 0.05 < low < reading.estimate < high < 0.25


def test_estimates_have_intervals_that_hold():
    """Over many attempts the 95 % interval misses the truth at any of the looks in at most 5 %."""
    which, missed = plan({"name": "e", "metric": "bad_ratio", "worse_than": "+0.2pp"}), 0
    rng = np.random.default_rng(17)
    for _ in range(60):
        state = None
        for number in range(60):
            sides = [ArmCounts(exchanges=200, units=200, bad_units=int(rng.binomial(200, p)))
                     for p in (0.03, 0.02)]  # fmt: skip
            state, _ = judge(which, state, block(number, *sides))
        interval = readings(which, state)[0].interval
        missed += interval is not None and not interval[0] <= 0.01 <= interval[1]
    assert missed <= 3
    assert interval is not None


def test_limits_count_everything_and_act_at_once():
    """20 % bad in two blocks running; one block, few exchanges or a good block between do not."""

    def at(number, bad, exchanges=100):
        return block(number, ArmCounts(exchanges=exchanges, bad_exchanges=bad))

    which = plan("errors")
    _, told, _ = folded(which, [at(0, 30), at(1, 5), at(2, 30), at(3, 9, 20), at(4, 30), at(5, 40)])
    assert [0, 0, 0, 0, 0, 1] == [len(one.limits) for one in told]
    (limit,) = told[-1].limits
    assert ("bad_ratio", 0.4, 0.2, 2) == (limit.metric, limit.value, limit.above, limit.blocks)


def test_a_degraded_arm_is_a_limit():
    """Half a minute without endpoints ends it; a second here and there does not."""

    def at(number, seconds):
        return block(number, ArmCounts(exchanges=1, degraded_s=seconds))

    _, told, _ = folded(plan("errors"), [at(0, 9), at(1, 9), at(2, 9), at(3, 10), at(4, 10)])
    assert [False, False, False, False, False] == [bool(one.limits) for one in told]
    _, told, _ = folded(plan("errors"), [at(0, 5), at(1, 10), at(2, 10), at(3, 10)])
    assert [False, False, False, True] == [bool(one.limits) for one in told]


def test_latency_limits_are_in_seconds():
    """p99 over five seconds in a block of everything, not of first exchanges only."""
    limits = [{"metric": "latency_p99", "above": "5s", "for": "1 block"}]
    slow = arm(np.random.default_rng(1), slower=1000)
    _, told, _ = folded(plan("errors", limits=limits), [
        block(0, replace(slow, latency_all=())), block(1, replace(slow, latency_all=slow.latency)),
    ])  # fmt: skip
    assert [0, 1] == [len(one.limits) for one in told]
    assert told[1].limits[0].value > 5


def test_pairs_are_not_judged_where_many_are_missing():
    """Below 95 % coverage a shadow's guards are undecided, whatever the evidence."""
    told = blocks(3, 40, paired={"disagree": 0.4, "compared": 0.8})
    _, judgements, _ = folded(plan("disagreement", "errors"), told)
    assert "undecided" == words(judgements[-1])["disagreement"]
    assert "of the shadows were compared" in judgements[-1].verdicts[0].why
    assert [("shadow_coverage", "hold")] == [(one.name, one.do) for one in judgements[-1].ailments]


def test_shadows_that_are_over_hold_nobody():
    """Copies that were missed can come back while there are copies: later nothing could ever end
    the hold. Guards of pairs stay undecided; the share is never told as the one that is wanted."""
    settings = JudgeSettings.model_validate({"guards": ["flips"]})
    missed = PairCounts(eligible=20_000, compared=18_999, units=18_999)
    for step, held in ((0, True), (1, False)):
        judging = Judging(settings, "a", "b", frozenset({0}))
        told = judging.take(replace(block(7, pairs=missed), step=step)).unhealthy
        assert ("shadow_coverage" in told) == held
        assert "94.9% of the shadows" in judging.verdicts()[0]["missing"]


def test_no_traffic_is_neither_good_nor_bad():
    """Fifteen quiet minutes are reported; e-values do not move."""
    told = [*blocks(3, 20), *(block(20 + n) for n in range(95))]
    _, judgements, _ = folded(plan("errors", "latency_p95"), told)
    assert () == judgements[20 + 80].ailments
    assert ["no_traffic"] == [one.name for one in judgements[-1].ailments]
    before, now = judgements[20].verdicts[1], judgements[-1].verdicts[1]
    assert (before.log_worse, before.log_safe) == (now.log_worse, now.log_safe)


def test_arms_of_unlike_size_are_reported():
    """A slice that gets 10 % more units than its mirror is not believed; 1 % is chance."""

    def at(number, canary):
        return block(number, ArmCounts(exchanges=1, units=canary),
                     ArmCounts(exchanges=1, units=1000))  # fmt: skip

    fair = folded(plan("errors"), [at(n, 990) for n in range(20)])[1]
    assert () == fair[-1].ailments
    unfair = folded(plan("errors"), [at(n, 1100) for n in range(20)])[1]
    assert ["sample_ratio"] == [one.name for one in unfair[-1].ailments]


def test_bursts_in_one_arm_are_no_evidence_by_default():
    """Ten healthy attempts with a burst of errors every minute, in either arm: none is worse."""
    rng = np.random.default_rng(23)
    for _ in range(10):
        told = [
            block(n, *(arm(rng, bad=0.3 if rng.random() < 0.15 else 0.005) for _ in range(2)))
            for n in range(120)
        ]
        assert ("errors", "worse") not in folded(plan("errors", limits=[]), told)[2]


@pytest.mark.parametrize("edition", [1, 2])
def test_the_published_vectors(edition):
    """The frozen blocks give the frozen e-values, after every block, for every kind of guard; those
    of an edition that was before, too."""
    vector = json.loads((FORMATS / f"verdicts-{edition}.json").read_text())
    which = Plan(JudgeSettings.model_validate(vector["settings"]), edition=edition)
    state = None
    for told, expected in zip(vector["blocks"], vector["log_e"], strict=True):
        state, judgement = judge(which, state, Block.read(told))
        found = [[one.log_worse, one.log_safe] for one in judgement.verdicts]
        assert np.array(found) == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9)
    assert vector["words"] == words(judgement)


def test_empty_blocks_are_judged_too():
    """A first block with nothing in it is a state like any other."""
    state, judgement = judge(plan(*EVERY), None, block(7, pairs=PairCounts()))
    assert {"undecided"} == set(words(judgement).values())
    assert all(one.log_worse == 0 for one in judgement.verdicts)
    assert 7 == state.number
    assert math.isclose(1.0, judgement.verdicts[0].e_safe)
