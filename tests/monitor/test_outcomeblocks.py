"""Labels by group in the order of their leaves: alerts that newer labels confirm."""

from __future__ import annotations

import json

from gateway.monitor.alerts import Alerts
from gateway.monitor.outcomeblocks import BLOCKS, LABELS, OutcomeBlocks

DAY = "2026-11-18"


def told(number: int, missed: float, sign: int = 1):
    """One leaf of a hundred labels: of b's good a share is missed; scores are right."""
    counts = []
    for group, share in (("a", 0.1), ("b", missed)):
        for favourable, good, n in (
            (1, 1, 25 - round(25 * share)), (0, 1, round(25 * share)), (0, 0, 20), (1, 0, 5)
        ):  # fmt: skip
            place = ["v1", "stable", DAY, "race", group, favourable, good]
            counts.append([*place, sign * n, sign * n * 0.5])
    return counts


def fold(leaves, restart: int = 10**9):
    blocks, alerts, events = OutcomeBlocks({}), Alerts({}), []
    for number, counts in enumerate(leaves):
        for seen in blocks.take({"m": counts}, {"at": number}):
            events += [(number, h.event, h.alert.cause) for h in alerts.take_sighting(seen)]
        if number % restart == restart - 1:
            blocks = OutcomeBlocks(json.loads(json.dumps(blocks.to_json())))
    return events, blocks


def test_a_group_whose_good_are_missed_alerts_once_newer_labels_confirm():
    """The group that is worse off alone, by opportunity and odds; nothing where both are alike."""
    events, _ = fold([told(n, 0.6) for n in range(30)])
    assert {(event, cause) for _, event, cause in events} == {
        ("opened", "bias/opportunity/race/b"), ("opened", "bias/odds/race/b")
    }  # fmt: skip
    assert min((number + 1) * 100 for number, *_ in events) == 2 * LABELS
    assert fold([told(n, 0.1) for n in range(30)])[0] == []


def test_scores_that_are_wrong_for_a_group_alert():
    """Half came true of scores of 0.3."""
    leaves = [[[*cell[:8], cell[8] * (0.6 if cell[4] == "b" else 1)] for cell in told(n, 0.1)]
              for n in range(30)]  # fmt: skip
    assert {cause for *_, cause in fold(leaves)[0]} == {"bias/calibration/race/b"}


def test_what_was_long_ago_is_forgotten_and_the_alert_is_over():
    """Twenty blocks of labels without it."""
    leaves = [told(n, 0.6) for n in range(20)] + [told(n, 0.1) for n in range(5 * BLOCKS)]
    events, _ = fold(leaves)
    assert [e for e in events if e[2] == "bias/opportunity/race/b"][-1][1] == "resolved"


def test_the_blocks_go_on_over_a_restart():
    """Cut anywhere, the same events and the same counts."""
    leaves = [told(n, 0.6) for n in range(23)]
    whole, kept = fold(leaves)
    parted, again = fold(leaves, restart=3)
    assert (parted, again.to_json()) == (whole, kept.to_json())


def test_labels_that_are_taken_back_count_no_more():
    """Corrections leave nothing behind, and never less than nothing."""
    leaves = [told(n, 0.6) for n in range(10)] + [told(n, 0.6, sign=-1) for n in range(10)]
    _, blocks = fold(leaves)
    (series,) = blocks.to_json().values()
    assert sum(cell[4] for block in series["blocks"] for cell in block) == 0
