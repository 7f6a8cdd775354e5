"""What is wrong with answers: scores missing, of another type, out of range, stuck, rounded."""

from dataclasses import replace

import numpy as np
import orjson
import pytest
from test_judge import CARD, SETTINGS, columns, drawn, run, window_of

from gateway.monitor.answers import rounded
from gateway.monitor.judge import judge
from gateway.monitor.reference import Reference, score_column
from gateway.monitor.sightings import sightings
from gateway.monitor.state import SeriesState
from gateway.protocol.dialects import dialect_of
from gateway.protocol.reader import Reader
from gateway.protocol.row import NO_MAPPING, fault_of

LEVEL = 0.01 / 65


def with_answers(seed, count, **change):
    window = drawn(seed)
    window.decisions[:count] = [
        replace(one, outcome=None, **change) for one in window.decisions[:count]
    ]
    return window


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"score": None, "flaw": "missing"}, "missing", "have no score"),
        ({"score": None, "flaw": "wrong_type"}, "wrong_type", "no number in place"),
        ({"score": None, "flaw": "out_of_range"}, "out_of_range", "outside the range"),
        ({"score": 1.5}, "out_of_range", "outside the range"),
    ],
)
def test_answers_that_break_the_cards_promise_are_a_fault(change, kind, words):
    """Ten of 500 are a fault at once, with its decisions as evidence; one is a watch. The score's
    drift is suppressed by it."""
    (report,), state = run([with_answers(3, 10, **change)])
    (found,) = report.score.quality
    assert (found.kind, found.state, found.count, found.n) == (kind, "fault", 10, 500)
    assert state.alarms == (f"quality/score/{kind}",)
    assert report.score.drift.suppressed_by == (kind,)
    assert any(words in sentence for sentence in report.words)
    seen = next(one for one in sightings(report) if one.cause == f"quality/score/{kind}")
    assert (seen.raised, seen.evidence["decisions"][0]) == (True, "id0")
    (once,), _ = run([with_answers(3, 1, **change)])
    assert [one.state for one in once.score.quality] == ["watch"]


def test_two_in_a_thousand_answers_are_within_the_bound():
    """Windows whose answers lack a score with the share that is allowed: no fault in 80."""
    dice = np.random.default_rng(5)
    for seed in range(80):
        window = with_answers(seed, int(dice.binomial(500, 0.002)), score=None, flaw="missing")
        (report,), _ = run([window])
        assert "fault" not in [one.state for one in report.score.quality]


def scored(seed, change, n=500):
    dice = np.random.default_rng(seed)
    return window_of(columns(dice, n), change(dice.random(n)))


@pytest.mark.parametrize("decimals", [1, 2])
def test_a_score_that_is_rounded_is_a_fault(decimals):
    """From the window on in which the upstream begins to round; it names the step."""
    reports, state = run([scored(1, lambda s: s), scored(2, lambda s: np.round(s, decimals))])
    assert reports[0].score.quality == ()
    (found,) = reports[1].score.quality
    assert (found.kind, found.level, found.state) == ("rounded", f"{10**-decimals:g}", "fault")
    assert state.alarms == ("quality/score/rounded",)
    assert reports[1].score.drift.suppressed_by == ("rounded",)
    assert any(f"in steps of {found.level}" in one for one in reports[1].words)


def test_four_digits_are_shown_and_wake_nobody():
    """Rounding that changes no distribution is a watch, and suppresses nothing."""
    reports, state = run([scored(seed, lambda s: np.round(s, 4)) for seed in (1, 2, 3)])
    (found,) = reports[-1].score.quality
    assert (found.kind, found.level, found.state) == ("rounded", "0.0001", "watch")
    assert (state.alarms, reports[-1].score.drift.suppressed_by) == ((), ())


def test_one_of_two_upstreams_may_round():
    """Half of the scores are rounded to hundredths: told as well."""
    half = scored(4, lambda s: np.where(np.arange(s.size) % 2, np.round(s, 2), s))
    (found,) = run([half])[0][0].score.quality
    assert (found.kind, found.level, found.state) == ("rounded", "0.01", "fault")


def shapes(dice, n, shape):
    """Scores as models give them: smooth, of few leaves, near 0 and 1, in thousands, rounded."""
    if shape == "smooth":
        return dice.random(n)
    if shape == "leaves":
        return dice.choice(np.random.default_rng(0).random(12), n)
    if shape == "few_round_leaves":
        return dice.choice([0.25, 0.5, 0.75, 0.123, 0.9], n, p=[0.5, 0.2, 0.2, 0.05, 0.05])
    if shape == "saturated":
        return np.clip(dice.normal(0.5, 0.6, n), 0, 1)
    if shape == "quantity":
        return np.exp(dice.normal(11, 1, n))
    return np.round(dice.random(n), 3)


@pytest.mark.parametrize(
    "shape", ["smooth", "leaves", "few_round_leaves", "saturated", "quantity", "rounded"]
)
def test_scores_like_the_references_are_never_rounded(shape):
    """Twenty references, thirty windows each: the bound does not cry wolf, also where the
    reference's own scores come in steps, in few values, or pile up at 0 and 1."""
    dice = np.random.default_rng(7)
    for _ in range(20):
        reference = score_column(shapes(dice, 2000, shape))
        for _ in range(30):
            assert rounded(reference, score_column(shapes(dice, 500, shape)), LEVEL) == []


def test_a_drift_towards_one_is_no_rounding():
    """Four in five scores become 1: a drift of the score, told as that."""
    moved = [scored(s, lambda x: np.where(x < 0.8, 1.0, x)) for s in (1, 2)]
    report = run(moved)[0][1]
    assert (report.score.quality, report.score.drift.state) == ((), "drift")


def test_one_and_the_same_score_is_stuck():
    """A default in place of an answer: a fault, not a drift."""
    (report,), state = run([scored(1, lambda s: np.full(s.size, 0.437))])
    assert [one.kind for one in report.score.quality] == ["stuck"]
    assert "quality/score/stuck" in state.alarms


V1 = CARD.model_copy(update={"outputs": CARD.outputs.model_copy(update={"outcome": None})})


@pytest.mark.parametrize(
    ("predictions", "faults"),
    [
        ([0.5, None], [None, "missing"]),
        ([0.5, "0.5"], [None, "wrong_type"]),
        ([{"p": 0.5}, {"q": 0.5}], [None, "missing"]),
        ([True, "high"], ["wrong_type", "wrong_type"]),
        ([0.5], [None, "missing"]),
        (None, ["missing", "missing"]),
    ],
)
def test_what_is_wrong_is_read_row_by_row(predictions, faults):
    """Rows that have a score keep it; an answer without any of what is declared lacks all."""
    body = orjson.dumps({} if predictions is None else {"predictions": predictions})
    reader = Reader(dialect_of("v1"), NO_MAPPING)
    found = reader.faults(V1, body, (), 2)
    assert [fault for _, fault in found] == faults
    assert found[0][0] == (0.5 if faults[0] is None else None)


def test_an_infinite_score_is_out_of_range():
    """Binary answers can hold one; NaN is what lacks."""
    assert [fault_of(one) for one in (np.float32(np.inf), float("nan"))] == [
        "out_of_range",
        "missing",
    ]


def test_a_version_that_nobody_here_can_score_is_compared_with_its_past():
    """Known by its card alone: the reference has no scores. From the window on in which its
    upstream rounds, told; the state holds counts and survives JSON."""
    unscored = Reference.of(CARD, columns(np.random.default_rng(1), 2000), None, "d" * 64)
    state, found = SeriesState(), []
    for seed in range(8):
        window = scored(seed, (lambda s: s) if seed < 5 else (lambda s: np.round(s, 2)))
        report, state = judge(window, unscored, CARD, SETTINGS, state)
        state = SeriesState.from_json(orjson.loads(orjson.dumps(state.to_json())))
        found.append([(one.kind, one.state, one.level) for one in report.score.quality])
    assert found == [[]] * 5 + [[("rounded", "fault", "0.01")]] * 3
    assert "quality/score/rounded" in state.alarms


def test_a_version_that_always_rounded_is_not_told():
    """Without scores of the reference, what it always did is what it does."""
    unscored = Reference.of(CARD, columns(np.random.default_rng(1), 2000), None, "d" * 64)
    state = SeriesState()
    for seed in range(5):
        report, state = judge(
            scored(seed, lambda s: np.round(s, 2)), unscored, CARD, SETTINGS, state
        )
        assert report.score.quality == ()
