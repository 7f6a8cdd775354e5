"""The benchmark of verdicts: short forms of its parts, held to exact binomial limits."""

import numpy as np
import pytest
from scipy import stats

from gateway.monitor import drift
from gateway.monitor.column import Column
from load import (
    cells,
    chance,
    courses,
    detection,
    intervals,
    matrix,
    mixed,
    online,
    pages,
    rare,
    restart,
)
from load.synthetic import changes, decisions_of, judged, reference_of, settings_of

UNLIKELY = 1e-4
"""Chance that a test here fails of a right program, had its seed been another."""


def test_intervals_cover_what_they_promise():
    """Near 95 % in each case, of 600 draws: in 93 to 97 % but for chance."""
    covering, states = intervals.coverage(0.06)
    low, high = stats.binom.ppf(UNLIKELY, 600, 0.93), stats.binom.isf(UNLIKELY, 600, 0.97)
    for row in covering[3]:
        for share in row[2:]:
            assert low <= float(share.removesuffix(" %")) * 6 <= high
    assert states[3][0][3] == "0.0 %"
    assert pages.rendered(states).startswith("## States of the four-fifths rule")


def test_missing_values_that_triple_are_seen_in_one_window():
    """1 % to 3 % of 1,000: nine times in ten, give or take chance, in sixty draws; none without."""
    ((*_, rows), _) = intervals.missing(0.06)
    told = [sum(float(share.removesuffix(" %")) for share in row[3:5]) for row in rows]
    assert told[0] * 0.6 >= stats.binom.ppf(UNLIKELY, 60, 0.85)
    assert max(told[2], told[3]) * 0.6 <= stats.binom.isf(UNLIKELY, 60, 0.01)


def test_significance_without_size_is_no_drift():
    """0.05 deviations in 100,000 values: sure, and too small to tell anybody."""
    ((*_, rows),) = detection.floors(0.1)
    assert [row[-1] for row in rows] == ["no", "no", "no", "yes"]


def test_each_change_is_what_it_says():
    """Twelve columns, and one that moved is paged by the second window."""
    dice = np.random.default_rng(1)
    for make in changes().values():
        assert make(dice, 50).shape == (50, 12)
    moved = changes()["mean of one by 1 sigma"]
    stream = (decisions_of(moved(dice, 500)) for _ in range(2))
    reports = list(judged(reference_of(1), settings_of(), stream))
    assert {"feature/x7", "sequence/feature/x7"} <= {c for r in reports for c in r.opened}


def test_a_block_of_the_page_is_put_anew():
    """Its prose stays, and a part that the page does not have is said."""
    page = "before\n<!-- floors -->\nold\n<!-- end of floors -->\nafter\n"
    told = pages.replaced(page, "floors", [("T", "n", ["a"], [["1"]])], "made so")
    assert "old" not in told
    assert told.startswith("before\n<!-- floors -->\n## T\nn\n\n| a |\n|---|\n| 1 |\n")
    assert told.endswith("made so\n<!-- end of floors -->\nafter\n")
    with pytest.raises(ValueError, match="no block 'runs'"):
        pages.replaced(page, "runs", [], "")


def test_alarms_by_chance_come_in_the_wanted_run():
    """Four references, 200,000 decisions, a run of 10,000: twenty alarms, give or take chance and
    what references differ by."""
    found = [chance._run(seed, 5_000, 10_000, 50_000) for seed in range(4)]
    alarms, fed = sum(one[1] for one in found), sum(one[0] for one in found)
    assert stats.poisson.ppf(UNLIKELY, 0.75 * fed / 10_000) <= alarms
    assert alarms <= stats.poisson.isf(UNLIKELY, 1.25 * fed / 10_000)


def test_nothing_pages_where_nothing_changed():
    """40 windows of mixed traffic: no page, at a bar of one in 10,000; and the plain rule of
    thumb alarms in a third of them, give or take chance."""
    told = chance._watched(3, 40, True)
    assert told["page"] <= stats.binom.isf(UNLIKELY, 40, 1e-4)
    assert told[chance.THUMBS[0]] >= stats.binom.ppf(UNLIKELY, 40, 0.35)


def test_mixed_traffic_is_what_the_card_says():
    """The same twelve features in reference, decisions and attributions."""
    reference, attributed = mixed.reference_of(1, 400)
    decisions = mixed.decisions_of(np.random.default_rng(1), 50)
    assert list(reference.columns) == [f.name for f in mixed.CARD.features]
    assert attributed.values.shape == (400, 12)
    assert {len(d.values) for d in decisions} == {len(d.attributions) for d in decisions} == {12}


def test_windows_by_array_are_the_monitors_own():
    """Each distance of the shortcut is the effect that the monitor's comparison tells."""
    reference, _ = mixed.reference_of(2, 1_000)
    columns = mixed.drawn(np.random.default_rng(2), 3 * rare.COUNT)
    for feature in mixed.CARD.features:
        then, values = reference.columns[feature.name], columns[feature.name]
        found = rare.distances(then, values)
        for at, window in enumerate(values.reshape(3, rare.COUNT)):
            told = [None if value != value else value for value in window.tolist()]
            compared = drift.compare(then, Column.of_window(feature, told, then))
            assert found[at] == pytest.approx(compared.effect, abs=1e-12)


def test_many_windows_page_as_seldom():
    """A hundred windows by array: none pages, at a bar of one in 10,000."""
    told = rare.watched(0, 2)
    assert told["any"] <= stats.binom.isf(UNLIKELY, 100, 1e-4)


def test_a_restart_changes_nothing():
    """Two streams broken off at twenty decisions: each report as without."""
    ((*_, rows),) = restart.restarts(0.1)
    assert rows[0][2] == "0"


def test_sizes_of_unlike_kinds_are_as_much():
    """Of a million rows, the share that a new law has more than the old: that of the mean's shift,
    for a spread and for a correlation too."""
    drawn = np.random.default_rng(3).normal(size=(2, 1_000_000))
    for sigma, share, wider, rho in zip(
        courses.GRADES, courses.SHARES, courses.WIDER, courses.CORRELATIONS
    ):
        pair = stats.multivariate_normal(cov=[[1, rho], [rho, 1]]).pdf(drawn.T)
        laws = (
            (stats.norm.pdf(drawn[0]), stats.norm.pdf(drawn[0], sigma)),
            (stats.norm.pdf(drawn[0]), stats.norm.pdf(drawn[0], scale=1 + wider)),
            (stats.norm.pdf(drawn).prod(axis=0), pair),
        )
        for old, new in laws:
            assert np.maximum(0, 1 - new / old).mean() == pytest.approx(share, abs=2e-3)


def test_each_course_is_what_it_says():
    """Half a gradual change has come by half its time, to half the decisions wholly; to all of them
    by half where the size grows; and what recurs is gone in between."""
    dice, at = np.random.default_rng(4), np.arange(9_000)
    abrupt, gradual, incremental, recurring = (one.share(dice, at) for one in courses.COURSES)
    assert set(abrupt) == {1.0}
    assert set(gradual) == {0.0, 1.0}
    assert set(gradual[2_000:]) == {1.0}
    assert stats.binom.ppf(UNLIKELY, 100, 0.45) <= gradual[950:1_050].sum()
    assert gradual[950:1_050].sum() <= stats.binom.isf(UNLIKELY, 100, 0.55)
    assert incremental[[0, 2_000, 4_000, 8_999]].tolist() == [0.0, 0.5, 1.0, 1.0]
    assert recurring[[0, 999, 1_000, 2_999, 3_000, 8_999]].tolist() == [1, 1, 0, 0, 1, 0]


@pytest.fixture(scope="module")
def begun() -> list[cells.Watched]:
    return [cells.begin(seed) for seed in range(3)]


@pytest.mark.parametrize(
    ("kind", "family"),
    [("mean", "feature"), ("mean", "sequence"), ("spread", "sequence"), ("correlation", "joint"),
     ("categories,", "feature"), ("values,", "quality")],
)  # fmt: skip
def test_a_whole_sigma_is_paged_whatever_has_changed(begun, kind, family):
    """Three streams, each paged in four windows by the family that is made for it; and of the
    correlation no test of single features tells anything."""
    changed = next(one for one in courses.KINDS if one.name == kind)
    abrupt = courses.COURSES[0]._replace(windows=4)
    runs = [cells.run(one, (abrupt, changed, changed.sizes[-1]), 0) for one in begun]
    told = [{c.split("/")[0] for opened in run.opened for c in opened} for run in runs]
    paged = sum(family in families for families in told)
    assert paged >= stats.binom.ppf(UNLIKELY, 3, 0.98)
    if family == "joint":
        assert set().union(*told) == {"joint"}


def test_labels_alone_page_nothing_and_are_seen(begun):
    """38 % of the labels turned: inputs are quiet, and accuracy leaves its estimate, which holds
    where none is: within two hundredths, of 6,000 labels."""
    runs = [cells.run(one, (courses.COURSES[0], courses.NOTHING, 0.0), 1) for one in begun]
    assert not any(opened for run in runs for opened in run.opened)
    for run in runs:
        plain, *_, most = run.labels
        assert plain.estimated > 0.85
        assert plain.accuracy == pytest.approx(plain.estimated, abs=0.02)
        assert most.apart == (True, True, True)


def test_the_matrix_has_a_row_for_each_cell():
    """Four courses, and the labels: each kind in each size, nothing, and a dummy."""
    runs = [cells.Run(((),) * 12, (0, 0), (cells.Labelled(0.9, 0.9, (False,) * 3),) * 5)] * 2
    found = {
        (course.name, kind.title(size)): runs
        for course in courses.COURSES for kind in courses.KINDS for size in kind.sizes
    }  # fmt: skip
    for course in courses.COURSES:
        _, _, columns, rows = matrix.pages_of(course, found, 2)
        assert len(rows) == 5 * 4 + 2
        assert {len(row) for row in rows} == {len(columns)}
        assert rows[1][:5] == ["mean by 0.1 sigma", "0 %", "0 %", "0 %", "not found"]
    assert len(matrix.labels_of(found, 2)[3]) == 20


def test_a_listener_is_timed_from_the_change():
    """One that alarms at the third decision of each piece: at the third after the change, whatever
    it said before; one that is silent is never told."""
    assert online.delays(lambda columns: [2, 50], "mean of one by 1 sigma", 3) == "3 (100 %)"
    assert online.delays(lambda columns: [], "spread of one by 1.5", 2) == "2,000 (0 %)"
    assert online.by_chance(lambda columns: [2], 2_000) == "100 (65 to 164)"
    assert online.by_chance(lambda columns: [], 2_000) == "none (542 to any)"
