"""The report on a shadow: shares with intervals, less noise, what is missing and stands out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.monitor.disagreement import (
    ShadowReport,
    correct,
    covered,
    segment,
    sentences,
    share_of,
    state_of,
)


def report(**changed: object) -> ShadowReport:
    coverage = covered(100, {})
    made = ShadowReport(
        "v3", "compared", {"v1": 100}, coverage, share_of(20, 100), share_of(20, 100), "none",
        share_of(0, 0), None, {"flip": 20}, {"approve>deny": 15, "deny>approve": 5}, {}, None,
        None, None, None, (), (), (),
    )  # fmt: skip
    return replace(made, **changed)  # type: ignore[arg-type]


def test_noise_is_taken_off_by_triples() -> None:
    """(n10 - n01) / n; nothing where both differ as often; None without triples."""
    found = correct(1000, 50, 20)
    assert found is not None
    assert found.difference == 0.03
    low, high = found.interval
    assert low < 0.03 < high
    balanced = correct(1000, 30, 30)
    assert balanced is not None
    assert balanced.difference == 0
    assert balanced.interval.low == pytest.approx(-balanced.interval.high)
    assert correct(0, 0, 0) is None


def test_the_corrected_interval_covers() -> None:
    """Of 2,000 draws with a known difference about 95 % of the intervals hold it."""
    dice = np.random.default_rng(6)
    drawn = dice.multinomial(300, [0.08, 0.03, 0.89], size=2000)
    covers = 0
    for n10, n01, _ in drawn:
        found = correct(300, int(n10), int(n01))
        assert found is not None
        covers += found.interval.low <= 0.05 <= found.interval.high
    assert 0.93 < covers / 2000 < 0.98


@pytest.mark.parametrize(
    ("compared", "missing", "state"),
    [(95, {"deadline": 5}, "compared"), (94, {"deadline": 6}, "inconclusive"),
     (0, {"breaker_open": 3}, "nothing"), (0, {}, "nothing"), (7, {}, "compared")],
)  # fmt: skip
def test_coverage_says_whether_it_may_be_judged(
    compared: int, missing: dict[str, int], state: str
) -> None:
    """Below 95 % of the copies that were drawn it is inconclusive; of none there is nothing."""
    assert state_of(covered(compared, missing)) == state


def test_a_segment_stands_out_beyond_the_whole() -> None:
    """Where its interval lies above that of all; a small one with a high share does not."""
    whole = share_of(100, 1000)
    assert segment("race", "black", 100, 40, whole).stands_out
    assert not segment("race", "other", 3, 2, whole).stands_out
    assert not segment("race", "other", 900, 60, whole).stands_out


def test_the_report_is_told_in_sentences() -> None:
    """Share and interval, flips, noise, what stands out, and why it is inconclusive."""
    words = " ".join(sentences(report()))
    assert "20.00% of 100 exchanges [13.34%, 28.88%]" in words
    assert "`approve>deny` 15, `deny>approve` 5" in words
    assert "always says the same" in words
    out = segment("race", "black", 50, 30, share_of(20, 100))
    measured = report(segments=(out,), noise_is="measured", corrected=correct(1000, 50, 20))
    words = " ".join(sentences(measured))
    assert "+3.00% of 1,000 triples" in words
    assert "`race` `black` (60.0% of 50)" in words
    assert "not measured" in " ".join(sentences(report(noise_is="not_measured")))
    coverage = covered(100, {"deadline": 30, "breaker_open": 70})
    words = sentences(report(state="inconclusive", coverage=coverage))[-1]
    assert words.startswith("Inconclusive: 50.0% of 200")
    assert "`breaker_open` 70, `deadline` 30" in words
    nothing = report(state="nothing", coverage=covered(0, {"disk": 2}))
    assert sentences(nothing) == ["Nothing of `v3` was compared: `disk` 2."]
