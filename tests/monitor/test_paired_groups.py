"""Two versions on the same requests: intervals, states, and the fold that counts them."""

from __future__ import annotations

import json
from itertools import product
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor.alerts import Alerts
from gateway.monitor.bias import DAY_NS
from gateway.monitor.drift import Drift
from gateway.monitor.pairs import (
    DECISIONS,
    Pairs,
    flips,
    judge_pairs,
    paired_of,
    pending_after,
    sightings,
    words_alike,
)
from gateway.monitor.proportion import mcnemar, newcombe_paired
from gateway.monitor.reference import score_column
from gateway.monitor.report import ScoreReport, summarise

WORDS = SimpleNamespace(below="deny", at_or_above="approve", adverse="deny")


@pytest.mark.parametrize("cells", [(0.7, 0.05, 0.03, 0.22), (0.4, 0.2, 0.1, 0.3)])
@pytest.mark.parametrize("n", [120, 500])
def test_the_interval_covers_95_of_100(cells, n):
    """Of 20,000 seeded samples 93 to 97 % hold the truth."""
    dice = np.random.default_rng(7)
    samples, counts = np.unique(dice.multinomial(n, cells, 20_000), axis=0, return_counts=True)
    truth = cells[2] - cells[1]
    held = 0
    for sample, times in zip(samples.tolist(), counts.tolist()):
        low, high = newcombe_paired(*sample)
        held += times * (low <= truth <= high)
    assert 0.93 <= held / 20_000 <= 0.97


def test_the_interval_is_newcombes_own_example():
    """36 both, 12 and 2 unlike, of 50: 0.0569 to 0.3404 by his method 10."""
    found = newcombe_paired(36, 2, 12, 0)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@pytest.mark.parametrize("cells", [(400, 60, 30, 110), (150, 20, 20, 60), (30, 5, 40, 425)])
def test_the_interval_is_near_that_of_another_formula(cells):
    """Tango's score interval (Statistics in Medicine 17, 1998, 891-908), by looking where its
    statistic is within 1.96: another construction, within half a point here."""
    both, first, second, neither = cells
    n = sum(cells)
    d = np.linspace(-0.999, 0.999, 200_001)
    middle = -second - first + (2 * n - second + first) * d
    least = (np.sqrt(middle**2 + 8 * n * first * d * (1 - d)) - middle) / (4 * n)
    z = (second - first - n * d) / np.sqrt(n * (2 * least + d * (1 - d)))
    inside = d[np.abs(z) <= 1.959964]
    found = newcombe_paired(*cells)
    assert (found.low, found.high) == pytest.approx((inside.min(), inside.max()), abs=5e-3)


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_swapping_the_versions_turns_the_interval(counts):
    """And it holds the difference, within -1 and 1."""
    both, first, second, neither = counts
    found, turned = newcombe_paired(*counts), newcombe_paired(both, second, first, neither)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    difference = (second - first) / sum(counts)
    assert -1 - 1e-9 <= found.low <= difference + 1e-9
    assert difference - 1e-9 <= found.high <= 1 + 1e-9


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (1, 6), (10, 2), (40, 25), (0, 5)])
def test_mcnemar_is_what_counting_all_outcomes_gives(first, second):
    """Every split of the discordant pairs by brute force; as likely ones count half."""
    n = first + second
    far = abs(first - second)
    chances = {k: comb(n, k) / 2**n for k in range(n + 1)}
    more = sum(p for k, p in chances.items() if abs(2 * k - n) > far)
    same = sum(p for k, p in chances.items() if abs(2 * k - n) == far)
    expected = 1.0 if far == 0 else more + same / 2
    assert mcnemar(first, second) == pytest.approx(expected, abs=1e-12)


def test_pairs_see_what_two_samples_do_not():
    """7 points of 400 decided unlike: sure by pairs, open by two samples of 400."""
    found = paired_of((280, 30, 2, 88))
    assert found.interval.high < -0.04
    assert found.p_value < 1e-6


def states_after(windows):
    pending, seen, blocks = {}, [], []
    for counts in windows:
        fresh = {"race": {"a": counts}}
        blocks.append(fresh)
        groups = judge_pairs(blocks, pending, fresh)
        pending = pending_after(groups, pending, fresh)
        seen.append(groups[0].state)
    return seen


def test_states():
    """Few are insufficient, alike are ok, unsure is watch, and a breach waits for new pairs."""
    assert states_after([(60, 1, 1, 30)]) == ["insufficient"]
    assert states_after([(200, 2, 2, 0)]) == ["insufficient"]
    assert states_after([(300, 4, 4, 92)]) == ["ok"]
    assert states_after([(90, 12, 6, 42)]) == ["watch"]
    assert states_after([(250, 80, 2, 68), (30, 8, 0, 12), (30, 8, 0, 12), (30, 8, 0, 12)]) == [
        "watch", "watch", "breach", "breach"
    ]  # fmt: skip


def test_new_pairs_that_tell_otherwise_confirm_nothing():
    """The old ones alone are no breach."""
    assert "breach" not in states_after([(250, 150, 2, 68), *[(70, 1, 1, 28)] * 3])


def leaf(at, outcome, **told):
    comparison = {"agree": True, "kind": "decision", "rows": 1, "of": {"version": "v1"}} | told
    record = {"model": "m", "version": "v2", "at": at, "id": "i"}
    return {"record": record, "comparison": comparison, "decisions": [{"outcome": outcome}]}


FLIP = {"agree": False, "reason": "flip"}


def take_all(pairs, count, start=0):
    """A tenth of group b is declined by the shadow alone; each report as it is due."""
    for number in range(start, start + count):
        group = "ab"[number % 2]
        worse = group == "b" and number % 10 == 1
        outcome = "deny" if worse or number % 4 == 0 else "approve"
        told = FLIP if worse else {}
        pairs.take(leaf(number, outcome, **told), WORDS, ("race",), [{"race": group}])
        yield from pairs.due(number)


def test_the_fold_goes_on_over_a_restart():
    """Cut anywhere, the reports are the same to the last count."""
    whole, parted = Pairs({}), Pairs({})
    expected = list(take_all(whole, 3 * DECISIONS))
    found = []
    for start in range(0, 3 * DECISIONS, 333):
        some = min(333, 3 * DECISIONS - start)
        found += take_all(parted, some, start)
        parted = Pairs(json.loads(json.dumps(parted.to_json())))
    assert found == expected
    assert [report.decisions for report in found] == [500, 1000, 1500]


def test_a_group_that_is_treated_worse_alerts_once_and_windows_do_not_calm_it():
    """Cause `bias/pair/race/b`; group a, decided alike, has none; nothing is called compliant."""
    alerts, events = Alerts({}), []
    for report in take_all(Pairs({}), 4 * DECISIONS):
        assert "compliant" not in json.dumps(report.to_json())
        for seen in sightings(report):
            events += [(h.event, h.alert.cause) for h in alerts.take_sighting(seen)]
        window = SimpleNamespace(id="m/v2/shadow/1", closed_at=report.at, judged=True, **EMPTY)
        events += [(h.event, h.alert.cause) for h in alerts.take_window(window)]
    assert events == [("opened", "bias/pair/race/b")]


EMPTY = {
    "features": (), "bias": (), "sequences": (), "slices": (), "family": None, "attributions": None,
    "outcome": None, "duplicates": None, "examples": (), "opened_at": 0,
    "baseline": SimpleNamespace(drifts={}),
    "joint": Drift("ok"),
    "score": ScoreReport("ok", Drift("ok"), (), None, summarise(score_column(np.zeros(1)), 100)),
}  # fmt: skip


def test_quiet_pairs_are_judged_after_a_day():
    """Few a day are not waited for until there are 500."""
    pairs = Pairs({})
    pairs.take(leaf(0, "approve"), WORDS, ("race",), [])
    assert not list(pairs.due(DAY_NS))
    (report,) = pairs.due(DAY_NS + 1)
    assert [(g.value, g.state) for g in report.groups] == [("unknown", "insufficient")]


def test_which_rows_flip():
    """A near tie agrees and flips; a batch whose comparison does not name all rows is left out."""
    assert flips({"kind": "decision", "rows": 1, "reason": "near_tie"}, 1) == [True]
    assert flips({"kind": "decision", "rows": 1, "reason": "jitter"}, 1) == [False]
    assert flips({"kind": "decision", "rows": 1, "reason": "rows"}, 1) == []
    assert flips({"kind": "number", "rows": 1}, 1) == []
    some = {"kind": "decision", "rows": 3, "disagree": 1, "differing": [[1, 0.5, "flip"]],
            "reasons": {"flip": 1, "jitter": 1}}  # fmt: skip
    assert flips(some, 3) == [False, True, False]
    assert flips(some | {"disagree": 2}, 3) == []
    assert flips(some | {"reasons": {"flip": 1, "near_tie": 1}}, 3) == []


def test_both_outcomes_of_both_versions_are_counted():
    """Each of the four cells, by who favoured whom."""
    pairs = Pairs({})
    for at, (outcome, told) in enumerate(product(("approve", "deny"), ({}, FLIP))):
        pairs.take(leaf(at, outcome, **told), WORDS, ("race",), [{"race": "a"}])
    (report,) = pairs.due(2 * DAY_NS)
    paired = report.groups[0].paired
    assert (paired.both, paired.only_first, paired.only_second, paired.neither) == (1, 1, 1, 1)


def test_versions_that_decide_between_other_words_are_no_pair():
    """The same two words in either order are a pair; others, or none, are not."""

    def card(**words):
        return SimpleNamespace(outputs=SimpleNamespace(outcome=SimpleNamespace(**words)))

    mine = card(below="deny", at_or_above="approve", adverse="deny")
    turned = card(below="approve", at_or_above="deny", adverse="deny")
    assert words_alike(mine, turned) is not None
    assert words_alike(mine, card(below="no", at_or_above="yes", adverse="no")) is None
    assert words_alike(mine, None) is None


def test_a_report_fits_into_a_leaf():
    """Four keys of many values: the gravest hundred groups are said, the others are counted."""
    pairs, keys = Pairs({}), ("one", "two", "three", "four")
    for at in range(DECISIONS):
        groups = {key: f"{key}{(at * prime) % 31:020}" for key, prime in zip(keys, (1, 7, 11, 13))}
        pairs.take(leaf(at, "deny", **FLIP), WORDS, keys, [groups])
    (report,) = pairs.due(DECISIONS)
    assert len(report.groups) == 100
    assert report.left_out > 0
    assert len(json.dumps(report.to_json())) < 48 * 1024
