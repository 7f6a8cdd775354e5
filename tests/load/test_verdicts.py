"""The benchmark of verdicts in short: the same code and seeds, fewer runs."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.rollout.guard import judge
from load import batch, judges, sixlines, verdicts
from load.streams import Case, arms, blocks

SHORT = ((10, 0.05), (50, 0.25))


@pytest.mark.parametrize(
    "case", [verdicts.HEALTHY[1], verdicts.HEALTHY[5]], ids=["bursts", "users"]
)
def test_healthy_versions_stay(case):
    """Of 200 healthy rollouts with bursts, and with users who return, hardly one is rolled back.

    At a chance of 2 % each, more than 10 of 200 would have one of less than 0.3 %.
    """
    short = replace(case, ramp=SHORT, shadow_blocks=0)
    assert verdicts.run(short, verdicts.plan_of(verdicts.GUARDS), 200).any_worse <= 10


@pytest.mark.parametrize("place", [1, 5, 7])
def test_the_second_writing_is_the_judge_that_ships(place):
    """E-values of every guard after every block, and the words, run by run."""
    short = replace(verdicts.HEALTHY[place], shadow_blocks=20, ramp=((10, 0.05), (60, 0.25)))
    plan = verdicts.plan_of(verdicts.GUARDS)
    traffic = [verdicts.drawn(short, number) for number in range(2)]
    told = batch.judged(plan, short, [one for one, _ in traffic], [one for _, one in traffic])
    for number, one in enumerate(traffic):
        state, logs, first = None, {}, {}
        for block in blocks(short, *one):
            state, judgement = judge(plan, state, block)
            for verdict in judgement.verdicts:
                logs.setdefault(verdict.guard, []).append((verdict.log_worse, verdict.log_safe))
                if verdict.word != "undecided":
                    first.setdefault((verdict.guard, verdict.word), block.number + 1)
        for guard, said in told.items():
            found = np.array([[worse[number], safe[number]] for worse, safe in said.logs])
            begin = 6 if guard == "disagreement" else 70 + 20 - len(found)
            expected = np.array(logs[guard])[begin : begin + len(found)]
            if guard == "fairness":  # what is missing is not shown
                found, expected = found[:, :1], expected[:, :1]
            assert found == pytest.approx(expected, abs=1e-6)
            assert len(found) >= 14
            for word, at in said.first.items():
                assert at[number] == first.get((guard, word), 0)


def test_six_lines_as_the_judge_that_ships():
    """The whole file's plan, its bursts by its steps: e-values of each guard after each block."""
    case = replace(sixlines.HEALTHY[3], shadow_blocks=12, ramp=((12, 0.05), (20, 0.5)))
    plan, traffic = sixlines.lines(True), [verdicts.drawn(case, number) for number in range(2)]
    told = batch.judged(plan, case, [one for one, _ in traffic], [one for _, one in traffic])
    for number, one in enumerate(traffic):
        state, logs = None, {}
        for block in blocks(case, *one):
            state, judgement = judge(plan, state, block)
            for verdict in judgement.verdicts:
                logs.setdefault(verdict.guard, []).append((verdict.log_worse, verdict.log_safe))
        for guard, said in told.items():
            found = np.array([[worse[number], safe[number]] for worse, safe in said.logs])
            begin = 6 if guard == "disagreement" else 44 - len(found)
            expected = np.array(logs[guard])[begin : begin + len(found)]
            assert found == pytest.approx(expected, abs=1e-6)


def test_six_lines_end_as_they_should():
    """A healthy version is promoted in about its eight minutes; labels in another order are stopped
    in the shadow, and by nothing else."""
    healthy, swapped = sixlines.HEALTHY[1], sixlines.FAULTY[0]
    with_shadow, without = verdicts._ends(healthy, 30)
    assert not with_shadow.blamed.any()
    assert (with_shadow.promoted >= 4 * sixlines.LEAST).all()
    assert (with_shadow.promoted <= 5 * sixlines.LEAST).all()
    assert (without.promoted + sixlines.LEAST <= with_shadow.promoted).all()
    with_shadow, without = verdicts._ends(swapped, 10)
    assert (with_shadow.worse <= sixlines.LEAST).all()
    assert (with_shadow.promoted == sixlines.NEVER).all()
    assert (without.promoted < sixlines.NEVER).all()


def test_twice_the_errors_are_found_within_the_horizon_of_the_study():
    """1 % to 2 %, alone at 1 %: half of the runs by block 46, give or take 20 %."""
    faulty = verdicts.FAULTY[0]
    case = replace(faulty.case, ramp=((120, 0.1),))
    runs = verdicts.run(case, verdicts.plan_of(faulty.guards, faulty.alpha, "0s"), 200)
    assert 46 * 0.8 <= runs.median("errors", "worse") <= 46 * 1.2


def test_units_of_a_stream_come_once():
    """First exchanges are never more than there are units, and fewer than exchanges."""
    case = Case(name="u", users=300, ramp=((50, 0.5),))
    canary, control = arms(case, np.random.default_rng(1))
    assert 100 < canary.units.sum() + control.units.sum() <= 600
    assert canary.exchanges.sum() > 20_000


def test_other_judges_do_what_they_say():
    """Each finds ten times the errors, and leaves equal shares alone."""
    rng = np.random.default_rng(2)
    total = (np.full((20, 240), 500), np.full((20, 240), 500))
    good = (rng.binomial(500, 0.01, (20, 240)), rng.binomial(500, 0.01, (20, 240)))
    bad = (rng.binomial(500, 0.1, (20, 240)), good[1])
    for name, ask in verdicts.OTHERS.items():
        assert (ask(bad, total) >= 0).all(), name
        if name not in ("over 1 % in more than 10 minutes", "z-test, peeked"):
            assert (ask(good, total) < 0).mean() > 0.8, name
    assert (judges.peeked(bad, total, 0.02) <= 3).all()
    assert (judges.once(bad, total, 0.02) == 239).all()


def test_the_page_has_a_place_for_each_table():
    """`--write` finds its marks, and puts a table between them."""
    page = verdicts.PAGE.read_text()
    for name in verdicts.TABLES:
        assert "| row |" in verdicts.written(page, name, ["| row |"])


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", verdicts.HEALTHY, ids=lambda case: case.name)
def test_no_healthy_case_exceeds_alpha(case):
    """2,000 whole rollouts with four guards: not significantly more than 2 % are rolled back."""
    runs = verdicts.run(case, verdicts.plan_of(verdicts.GUARDS), 2000)
    assert runs.any_worse <= 53  # 2 % and 2 standard deviations
