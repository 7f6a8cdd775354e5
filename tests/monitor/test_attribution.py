"""Drift of attributions: by feature, and of the ranking, against a bootstrap of the reference."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gateway.modelsettings import DriftSettings
from gateway.monitor import attribution
from gateway.monitor.attribution import AttributionReference
from gateway.monitor.drift import verdicts
from gateway.monitor.judge import judge
from gateway.monitor.sightings import sightings
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Decision, Window
from tests.monitor.test_judge import CARD, SETTINGS, columns, reference

RULES = DriftSettings()
NAMES = tuple("abcdef")
WEIGHTS = np.array([1.0, 0.7, 0.5, 0.35, 0.34, 0.0])
"""Two of like weight, which change places by chance, and one that never counts."""


def drawn(dice, n, weights=WEIGHTS):
    return dice.normal(size=(n, weights.size)) * weights


def known(seed=1, n=2000):
    return AttributionReference.of(NAMES, drawn(np.random.default_rng(seed), n), "b" * 64)


def test_the_reversed_share_is_kendalls_tau():
    """scipy's tau where there are no ties; 0 for the same order, 1 for the opposite."""
    dice = np.random.default_rng(2)
    then, now = dice.normal(size=7), dice.normal(size=(5, 7))
    shares = attribution.reversed_share(then, now)
    taus = [stats.kendalltau(then, one).statistic for one in now]
    assert 1 - 2 * shares == pytest.approx(taus)
    assert attribution.reversed_share(then, then[None]) == [0.0]
    assert attribution.reversed_share(then, -then[None]) == [1.0]


def test_ranking_raises_few_false_alarms_and_the_dice_are_seeded():
    """At 5 % and without a floor, over ten references: the share is not above 5 % beyond chance."""
    rules = DriftSettings(ranking=0.0)
    dice = np.random.default_rng(3)
    low = 0
    for seed in range(10):
        then = known(seed)
        for _ in range(60):
            found = attribution.compare_ranking(then, drawn(dice, 300), rules)
            low += found.p_value <= 0.05
    assert low <= stats.binom.ppf(0.999, 600, 0.05)
    again = attribution.compare(known(), drawn(np.random.default_rng(5), 300), RULES)
    assert again == attribution.compare(known(), drawn(np.random.default_rng(5), 300), RULES)


def test_neighbours_may_change_places_and_leaders_may_not():
    """Two of like weight swapped are chance; the first for the fourth is a drift."""
    dice = np.random.default_rng(4)
    swapped = attribution.compare_ranking(known(), drawn(dice, 500, WEIGHTS[[0, 1, 2, 4, 3, 5]]),
                                          RULES)  # fmt: skip
    assert swapped.p_value > 0.05
    led = attribution.compare_ranking(known(), drawn(dice, 500, WEIGHTS[[3, 1, 2, 0, 4, 5]]), RULES)
    assert led.p_value <= 0.001
    assert led.effect >= led.floor
    found = verdicts({"attribution/ranking": led}, {"attribution/ranking": 1}, {}, RULES)
    assert found["attribution/ranking"].state == "drift"


def test_nothing_to_rank_is_not_ranked():
    """Attributions that are all nought, or a single feature, give no ranking to compare."""
    level = AttributionReference.of(NAMES, np.zeros((200, 6)), "b" * 64)
    assert attribution.compare_ranking(level, np.zeros((200, 6)), RULES) is None
    alone = AttributionReference.of(("a",), np.ones((200, 1)), "b" * 64)
    assert "attribution/ranking" not in attribution.compare(alone, np.ones((200, 1)), RULES)


def test_a_bootstrap_is_shared_by_windows_of_like_size_and_never_by_larger_ones():
    """Sizes go down by a tenth or so at most, never up."""
    for rows in range(1, 3000, 7):
        assert rows / 1.25 - 1 <= attribution.rounded(rows) <= rows


# ------------------------------------------------------------------------- in a window's report

USED = ("lvr", "ccs", "dmi")


def window(dice, n=500, weights=(1.0, 0.5, 0.2), shift=0.0, explained=True):
    rows, told = columns(dice, n, shift), drawn(dice, n, np.array(weights))
    found = Window("mortgage", "v1", "stable")
    for place in range(n):
        values = (*(rows[name].tolist()[place] for name in USED), "a")
        found.add(
            Decision(place, place, f"id{place}/0", float(dice.random()), "approve", values, {},
                     tuple(told[place].tolist()) if explained else None)
        )  # fmt: skip
    return found


def judged(windows, attributed):
    state, reports = SeriesState(), []
    for one in windows:
        report, state = judge(one, reference(), CARD, SETTINGS, state, attributed=attributed)
        reports.append(report)
    return reports


@pytest.fixture(scope="module")
def attributed():
    values = drawn(np.random.default_rng(9), 2000, np.array([1.0, 0.5, 0.2]))
    return AttributionReference.of(USED, values, "b" * 64)


def test_what_moves_the_score_changes_alone(attributed):
    """The inputs are as they were: attributions and ranking are told, opened at the second window,
    in words and as sightings; nothing else is."""
    dice = np.random.default_rng(10)
    first, second = judged([window(dice, weights=(0.2, 0.5, 1.0)) for _ in range(2)], attributed)
    assert first.opened == ()
    assert first.attributions.ranking.state == "watch"
    assert {"attribution/dmi", "attribution/lvr", "attribution/ranking"} <= set(second.opened)
    assert not any(cause.startswith("feature/") for cause in second.opened)
    assert "What moves the score most is now `dmi`, `ccs`, `lvr`" in " ".join(second.words)
    told = {one.cause: one for one in sightings(second)}
    assert told["attribution/ranking"].raised
    assert told["attribution/ranking"].severity == "critical"
    assert told["attribution/ranking"].evidence["after"] == ["dmi", "ccs", "lvr"]
    assert told["attribution/ccs"].raised is False


def test_no_change_is_ok(attributed):
    """Attributions from the reference's law are fine, and no sentence is spent on them."""
    (report,) = judged([window(np.random.default_rng(11))], attributed)
    assert report.attributions.n == 500
    assert report.attributions.ranking.state == "ok"
    assert [one.drift.state for one in report.attributions.features] == ["ok"] * 3
    assert not any("adds to the score" in sentence for sentence in report.words)


def test_a_feature_that_moved_is_told_as_that(attributed):
    """Its own attributions moved with it: the feature opens, they do not."""
    dice = np.random.default_rng(12)
    moved = [window(dice, weights=(3.0, 0.5, 0.2), shift=1.0) for _ in range(2)]
    _, second = judged(moved, attributed)
    assert "feature/lvr" in second.opened
    assert "attribution/lvr" not in second.opened
    (lvr,) = [one for one in second.attributions.features if one.name == "lvr"]
    assert lvr.drift.suppressed_by == ("feature/lvr",)


def test_a_broken_feed_explains_its_attribution_and_the_ranking(attributed):
    """A feature at fault holds back both; they neither raise nor calm."""
    dice = np.random.default_rng(13)
    broken = window(dice, weights=(0.2, 0.5, 1.0))
    broken.decisions = [replace(one, values=(None, *one.values[1:])) for one in broken.decisions]
    (report,) = judged([broken], attributed)
    (lvr,) = [one for one in report.attributions.features if one.name == "lvr"]
    assert lvr.drift.suppressed_by == ("missing",)
    assert report.attributions.ranking.suppressed_by == ("missing",)
    told = {one.cause: one.raised for one in sightings(report)}
    assert told["attribution/ranking"] is None


def test_what_is_not_explained_is_not_judged(attributed):
    """None at all: no report; fewer than the minimum: not enough data; 120 are enough."""
    dice = np.random.default_rng(14)
    (none,) = judged([window(dice, explained=False)], attributed)
    assert none.attributions is None
    (few,) = judged([window(dice, n=120)], attributed)
    some = window(dice, n=500, explained=False)
    some.decisions[:50] = window(dice, n=50).decisions
    (some,) = judged([some], attributed)
    assert few.attributions.ranking.comparison is not None
    assert (some.attributions.n, some.attributions.ranking.state) == (50, "not_enough_data")
