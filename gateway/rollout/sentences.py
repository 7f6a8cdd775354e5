"""Verdicts in words, for people who know no statistics: pure."""

from __future__ import annotations

import math

from gateway.declaration import MILLION
from gateway.rollout.guard import Verdict
from gateway.rollout.guardsettings import GuardSettings
from gateway.rollout.outlook import Outlook

WHAT = {
    "bad_ratio": "answers that fail", "label_correct": "wrong answers",
    "tokens": "the mean number of tokens", "score": "the distance of scores from the reference",
}  # fmt: skip


def say(guard: GuardSettings, verdict: Verdict, source: str, target: str) -> str:
    """What was seen, between whom, and what was allowed; then what that means."""
    if verdict.why is not None:
        return f"nothing can be said yet: {verdict.why}"
    if verdict.estimate is None:
        return "nothing was seen yet"
    return f"{_seen(guard, verdict, source, target)}; {_meaning(verdict, target)}"


def _seen(guard: GuardSettings, verdict: Verdict, source: str, target: str) -> str:
    found = verdict.estimate
    assert found is not None
    people = f"{min(verdict.units):,}"
    if guard.metric in ("flips", "disagree"):
        what = "decided otherwise" if guard.metric == "flips" else "answered otherwise"
        allowed = f"{(guard.max or 0) / MILLION * 100:g} %"
        return f"of {people} units {found:.1%} would be {what} by {target}; {allowed} is allowed"
    allowed = f"{guard.worse_than} is allowed"
    if guard.metric == "positive_rate_gap":
        group = verdict.group or guard.by
        return (f"with {target} the disadvantage of {group} beside the others changes by "
                f"{found * 100:+.1f} points; {allowed}")  # fmt: skip
    if guard.worse_than is not None and guard.worse_than.factor:
        latency = f"{guard.statistic} latency"
        what = latency if guard.metric == "latency" else WHAT[guard.metric]
        return f"{what} of {target} is {math.exp(found):.2f} times that of {source}; {allowed}"
    if guard.metric == "score":
        return f"{WHAT['score']} is {found:+.3f} with {target}; {allowed}"
    return (f"{target} has {found * 100:+.2f} points of {WHAT[guard.metric]} against {source}, "
            f"in {people} units each; {allowed}")  # fmt: skip


def _meaning(verdict: Verdict, target: str) -> str:
    if verdict.word == "worse":
        return f"that {target} is worse is as good as certain"
    if verdict.word == "safe":
        return f"that {target} is no worse is shown"
    return "that may still be chance"


def foresee(guard: GuardSettings, told: Outlook, within_s: float) -> str:
    """What may be expected, at even odds: nothing is promised."""
    pieces = []
    if told.safe_in_s:
        pieces.append(f"if there is no difference, that is shown in about {span(told.safe_in_s)}")
    if told.detectable is not None:
        if guard.worse_than is not None and guard.worse_than.factor:
            size = f"a factor of {math.exp(min(told.detectable, 20.0)):.2f}"
        else:
            what = "a share" if guard.metric in ("flips", "disagree") else "a difference"
            size = f"{what} of {told.detectable:.2%}"
        pieces.append(f"{size} would be found within {span(within_s)}")
    return "; ".join(pieces)


def span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1.0, seconds):.0f} s"
