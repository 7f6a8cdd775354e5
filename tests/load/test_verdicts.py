"""The benchmark of verdicts in short: the same code and seeds, fewer runs."""

from dataclasses import replace

import numpy as np
import pytest

from load import judges, verdicts
from load.streams import Case, arms

SHORT = ((10, 0.05), (50, 0.25))


@pytest.mark.parametrize(
    "case", [verdicts.HEALTHY[1], verdicts.HEALTHY[5]], ids=["bursts", "users"]
)
def test_healthy_versions_stay(case):
    """Of 200 healthy rollouts with bursts, and with users who return, hardly one is rolled back.

    At a chance of 2 % each, more than 10 of 200 would have one of less than 0.3 %.
    """
    short = replace(case, ramp=SHORT, shadow_blocks=0)
    assert verdicts.run(short, verdicts.plan_of(["errors"]), 200).any_worse <= 10


def test_twice_the_errors_are_found_within_the_horizon_of_the_study():
    """1 % to 2 %, alone at 1 %: half of the runs by block 46, give or take 20 %."""
    faulty = verdicts.FAULTY[0]
    runs = verdicts.run(
        faulty.case, verdicts.plan_of(faulty.guards, faulty.alpha, "0s"), 60, faulty=faulty
    )
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
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", verdicts.HEALTHY, ids=lambda case: case.name)
def test_no_healthy_case_exceeds_alpha(case):
    """2,000 whole rollouts with four guards: not significantly more than 2 % are rolled back."""
    runs = verdicts.run(case, verdicts.plan_of(verdicts.GUARDS), 2000)
    assert runs.any_worse <= 53  # 2 % and 2 standard deviations
