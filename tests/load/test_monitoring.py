"""The benchmark of verdicts: its fast parts run, and say what the page says."""

import numpy as np

from load import monitoring
from load.synthetic import changes, decisions_of, judged, reference_of, settings_of


def test_intervals_cover_what_they_promise():
    """Near 95 % in each case, of 600 draws."""
    intervals, states = monitoring.coverage(0.06)
    for row in intervals[2]:
        for share in row[2:]:
            assert 91 <= float(share.removesuffix(" %")) <= 99
    assert states[2][0][3] == "0.0 %"
    assert monitoring.rendered(states).startswith("## States of the four-fifths rule")


def test_significance_without_size_is_no_drift():
    """0.05 deviations in 100,000 values: sure, and too small to tell anybody."""
    ((_, _, rows),) = monitoring.floors(0.1)
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
