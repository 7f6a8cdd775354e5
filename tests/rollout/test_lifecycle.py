"""The life cycle: no illegal move, narrowing always possible, moves in the order of the rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rollout.lifecycle import (
    EXPOSED,
    LEGAL,
    OVER,
    Approval,
    Decision,
    Finding,
    Move,
    Phase,
    Plan,
    Stage,
    Step,
    abort,
    advance,
    approve,
    go_on,
    hold,
    is_legal,
    make,
    pause,
    resume,
    roll_back,
)

S = 10**9
STEPS = (
    Step(1_000_000, least_ns=10 * S, most_ns=60 * S, require=frozenset({"disagreement"})),
    Step(weight_ppm=50_000, least_ns=10 * S),
    Step(weight_ppm=50_000, approval="sre", expires_ns=100 * S),
    Step(weight_ppm=500_000, least_ns=10 * S, most_ns=60 * S, require=frozenset({"errors"})),
    Step(weight_ppm=990_000, least_ns=10 * S, bake=True),
)  # fmt: skip
PLAN = Plan(STEPS, "d" * 64, "ana")
RUNNING = Stage(Phase.RUNNING, 1, 0, 3)


def finding(seconds: float, **said) -> Finding:
    return Finding(round(seconds * S), **said)


GUARDS = st.sampled_from(["errors", "disagreement", "latency_p95"])
FINDINGS = st.builds(
    Finding,
    at=st.integers(0, 200 * S),
    limits=st.sampled_from([(), (), (), ("25 % errors",)]),
    unhealthy=st.sampled_from([{}, {}, {"no_traffic": "nobody came"}]),
    worse=st.dictionaries(GUARDS, st.sampled_from(["hold", "rollback"]), max_size=1),
    safe=st.frozensets(GUARDS),
    alerts=st.sampled_from([{}, {}, {"a": "drift"}]),
)
PLANS = st.builds(
    Plan,
    steps=st.sampled_from([STEPS, STEPS[1:2] + STEPS[3:], STEPS[4:]]),
    digest=st.just("d" * 64),
    author=st.just("ana"),
    on_inconclusive=st.sampled_from(["hold", "rollback", "advance"]),
    on_alert=st.sampled_from(["ignore", "hold", "rollback"]),
)
ASKED = st.sampled_from(["begin", "resume", "next", "abort", "approve"])


def asked_for(what: str, plan: Plan, stage: Stage) -> Decision | None:
    """What a person may ask for, whatever the phase is."""
    if what in ("begin", "next"):
        return go_on(plan, stage, what)
    if what == "resume" and 0 <= stage.step < len(plan.steps):
        return resume(plan, stage, what)
    return abort(stage, what) if what == "abort" else None


@given(PLANS, st.lists(st.one_of(FINDINGS, ASKED), max_size=40))
def test_no_illegal_move_is_ever_wanted(plan, happened):
    """Whatever blocks show and people ask: what the evidence wants is legal, what is not legal does
    not happen, exposure never passes its step, and an exposed rollout can be narrowed at once."""
    stage, number = Stage(Phase.APPROVED), 0
    for one in happened:
        if isinstance(one, Finding):
            wanted = advance(plan, stage, one)
            assert wanted is None or is_legal(stage, wanted, plan), (stage, wanted)
        elif one == "approve" and stage.step >= 0:
            stage = approve(stage, Approval("ben", stage.step, plan.digest, stage.since))
            continue
        else:
            wanted = asked_for(one, plan, stage)
        if wanted is not None and is_legal(stage, wanted, plan):
            number += 1
            after = make(stage, wanted, number, stage.since + 1, by_person=isinstance(one, str))
            assert after.phase in LEGAL[stage.phase, wanted.move]
            assert make(after, wanted, number, 0, by_person=True) == after
            assert after.step >= stage.step
            stage = after
        assert Stage.from_json(stage.to_json()) == stage
        if stage.phase in EXPOSED:
            assert is_legal(stage, roll_back(stage, ""), plan)
            assert is_legal(stage, abort(stage, ""), plan)
            assert stage.phase is Phase.HELD or is_legal(stage, hold(stage, "person", ""), plan)
            assert stage.held is None or stage.phase is Phase.HELD
        if stage.phase in OVER:
            assert not any(is_legal(stage, Decision(move, phase, stage.step, ""), plan)
                           for move in Move for phase in Phase)  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "shown", "move", "phase"),
    [
        (RUNNING, finding(5), None, None),
        (RUNNING, finding(10), Move.NEXT, Phase.RUNNING),
        (RUNNING, finding(5, limits=("x",), unhealthy={"y": "y"}), Move.ROLL_BACK,
         Phase.ROLLED_BACK),
        (RUNNING, finding(5, unhealthy={"y": "y"}, worse={"errors": "rollback"}), Move.HOLD,
         Phase.HELD),
        (RUNNING, finding(5, worse={"errors": "rollback"}), Move.ROLL_BACK, Phase.ROLLED_BACK),
        (RUNNING, finding(5, worse={"errors": "hold"}), Move.HOLD, Phase.HELD),
        (replace(RUNNING, step=3), finding(59), None, None),
        (replace(RUNNING, step=3), finding(59, safe=frozenset({"errors"})), Move.NEXT,
         Phase.BAKING),
        (replace(RUNNING, step=3), finding(60), Move.HOLD, Phase.HELD),
        (replace(RUNNING, step=2), finding(99), None, None),
        (replace(RUNNING, step=2), finding(101), Move.HOLD, Phase.HELD),
        (Stage(Phase.BAKING, 4), finding(10), Move.NEXT, Phase.PROMOTED),
        (Stage(Phase.PROMOTED, 4), finding(10, limits=("x",)), None, None),
    ],
)  # fmt: skip
def test_the_order_of_the_rules(stage, shown, move, phase):
    """Limits before health before evidence before time; required evidence before the next step."""
    wanted = advance(PLAN, stage, shown)
    assert (wanted and wanted.move, wanted and wanted.phase) == (move, phase)


def test_an_approval_is_of_this_plan_and_expires():
    """Another plan's, or one too old, does not count; one given early does."""
    waiting = replace(RUNNING, step=2, since=50 * S)
    for approval, wanted in [
        (Approval("ben", 2, "d" * 64, 20 * S), Move.NEXT),
        (Approval("ben", 2, "e" * 64, 20 * S), None),
        (Approval("ben", 1, "d" * 64, 20 * S), None),
    ]:
        found = advance(PLAN, approve(waiting, approval), finding(60))
        assert (found and found.move) == wanted
    assert advance(PLAN, approve(waiting, Approval("b", 2, "d" * 64, 20 * S)), finding(121)) is None


def test_what_a_person_overrules_holds_no_more():
    """A guard that held is not asked again after `resume`; the step's time begins anew."""
    wanted = advance(PLAN, RUNNING, finding(5, worse={"errors": "hold"}))
    held = make(RUNNING, wanted, 4, 5 * S, by_person=False)
    again = make(held, resume(PLAN, held, "seen"), 5, 30 * S, by_person=True)
    assert (again.overruled, again.since) == (frozenset({"errors"}), 30 * S)
    assert advance(PLAN, again, finding(35, worse={"errors": "hold"})) is None
    assert advance(PLAN, again, finding(35, worse={"latency_p95": "hold"})).move is Move.HOLD


def test_health_comes_back_by_itself():
    """A rollout held for its health goes on when that is well; one held by a person does not."""
    for kind, move in [("health", Move.RESUME), ("person", None), ("inconclusive", None)]:
        held = make(RUNNING, hold(RUNNING, kind, "x", ["x"]), 4, 5 * S, by_person=False)
        found = advance(PLAN, held, finding(10))
        assert (found and found.move) == move


@pytest.mark.parametrize(
    ("shown", "move"),
    [({}, Move.RESUME), ({"worse": {"errors": "hold"}}, None), ({"alerts": {"a": "drift"}}, None),
     ({"worse": {"errors": "rollback"}}, Move.ROLL_BACK), ({"unhealthy": {"x": "x"}}, None)],
)  # fmt: skip
def test_what_would_be_held_again_does_not_go_on(shown, move):
    """Health alone lets nobody go on whom a guard or an alert would stop at once."""
    plan = replace(PLAN, on_alert="hold")
    held = make(RUNNING, hold(RUNNING, "health", "x", ["x"]), 4, 5 * S, by_person=False)
    found = advance(plan, held, finding(10, **shown))
    assert (found and found.move) == move


def test_a_person_takes_over_a_hold():
    """Once; then health lets it go on no more, and who resumes overrules both reasons."""
    held = make(RUNNING, hold(RUNNING, "health", "x", ["x"]), 4, 5 * S, by_person=False)
    assert not is_legal(held, hold(held, "worse", "y", ["errors"]), PLAN)
    assert is_legal(held, pause(held, "wait"), PLAN)
    paused = make(held, pause(held, "wait"), 5, 6 * S, by_person=True)
    assert not is_legal(paused, pause(paused, "again"), PLAN)
    assert advance(PLAN, paused, finding(10)) is None
    assert make(paused, resume(PLAN, paused, ""), 6, 7 * S, by_person=True).overruled == {"x"}


@pytest.mark.parametrize(
    ("wish", "move"),
    [("advance", Move.HOLD), ("hold", Move.HOLD), ("rollback", Move.ROLL_BACK)],
)
def test_an_approval_that_does_not_come_never_goes_on(wish, move):
    """Whatever the file does with evidence that is undecided: nobody's yes is no yes."""
    waiting = replace(RUNNING, step=2)
    assert advance(replace(PLAN, on_inconclusive=wish), waiting, finding(101)).move is move


@pytest.mark.parametrize(
    ("undecided", "move"),
    [({}, Move.HOLD), ({"errors": "rollback"}, Move.ROLL_BACK), ({"errors": "advance"}, Move.NEXT),
     ({"errors": "advance", "latency_p95": "hold"}, Move.HOLD)],
)  # fmt: skip
def test_a_guard_may_have_a_way_out_of_its_own(undecided, move):
    """At the step's end; of several undecided guards the most careful one is followed."""
    steps = list(STEPS)
    steps[3] = replace(STEPS[3], require=frozenset({"errors", *undecided}))
    plan = replace(PLAN, steps=tuple(steps), undecided=undecided)
    assert advance(plan, replace(RUNNING, step=3), finding(60)).move is move
