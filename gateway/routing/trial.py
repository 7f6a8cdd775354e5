"""What a draft would have done with a recorded request: pure.

A record lacks what is never kept (credentials, cookies, headers that the model drops), and of a
long body all but its beginning. Where a rule or the unit would have needed that, the answer is
unknown, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.condition import BodyIs, Condition, HeaderIs
from gateway.exchange import NEVER_KEPT
from gateway.routing.body import sequence_in
from gateway.routing.choice import choose
from gateway.routing.question import Question
from gateway.table import Model, Rule


@dataclass(frozen=True, slots=True)
class Recorded:
    """`dropped`: headers that the model of then did not keep. `whole`: the body was kept whole."""

    id: str
    version: str
    rule: str
    arm: str
    unit_kind: str
    question: Question
    dropped: frozenset[bytes]
    whole: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """`result`: stay, change, unknown, refused (no rule), or forced and session, which no rule
    decides; `why` for unknown."""

    result: str
    rule: str | None = None
    version: str | None = None
    why: str | None = None


def tried(model: Model, recorded: Recorded) -> Outcome:
    if recorded.arm == "forced":
        return Outcome("forced")
    if recorded.unit_kind == "session":
        return Outcome("session")
    found = _rule(model, recorded)
    if isinstance(found, str):
        return Outcome("unknown", why=found)
    if found is None:
        return Outcome("refused")
    if found.intervals and (lost := _lost_unit(model, recorded)) is not None:
        return Outcome("unknown", found.name, why=lost)
    question = recorded.question
    sequence = None
    if found.intervals and recorded.unit_kind == "sequence":
        sequence = sequence_in(question.dialect, question.message(), found.limits["hold"])
    choice = choose(model, found, dict(question.first), recorded.id, sequence)
    result = "stay" if choice.version == recorded.version else "change"
    return Outcome(result, found.name, choice.version)


def _rule(model: Model, recorded: Recorded) -> Rule | str | None:
    """The rule, or why nobody knows it; None: none matches."""
    for rule in model.rules:
        unknown = [condition for condition in rule.conditions if _lost(condition, recorded)]
        known = (condition for condition in rule.conditions if condition not in unknown)
        if not all(condition.holds(recorded.question) for condition in known):
            continue
        if not unknown:
            return rule
        (first, *_) = unknown
        if isinstance(first, HeaderIs):
            return f"header {first.name.decode()} was not kept"
        return "the body was not kept whole"
    return None


def _lost(condition: Condition, recorded: Recorded) -> bool:
    if isinstance(condition, BodyIs):
        return not recorded.whole
    return isinstance(condition, HeaderIs) and _is_lost(condition.name, recorded)


def _is_lost(name: bytes, recorded: Recorded) -> bool:
    return name in NEVER_KEPT or name in recorded.dropped or name.startswith(b"proxy-")


def _lost_unit(model: Model, recorded: Recorded) -> str | None:
    """Why the unit is unknown; None: it is known."""
    if recorded.unit_kind == "sequence":
        return None if recorded.whole else "the body was not kept whole"
    for source in model.unit:
        kind, _, name = source.partition(":")
        if kind != "header":
            return None
        if _is_lost(name.encode(), recorded):
            return f"header {name} was not kept"
        if recorded.question.first.get(name.encode()):
            return None
    return None
