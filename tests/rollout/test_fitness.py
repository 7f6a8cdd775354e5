"""What a rollout's file may not ask on the table in force."""

from __future__ import annotations

from typing import Any

import pytest
from site_of_rollouts import FILE

from gateway.rollout.fitness import misfits
from gateway.rollout.rolloutsettings import RolloutSettings
from gateway.yamlfile import check_document

OUTCOME = {"below": "approve", "at_or_above": "deny", "adverse": "deny"}


def document(outcome: dict[str, str] | None = OUTCOME, card: bool = True) -> dict[str, Any]:
    told = {"features": [], "outputs": {"outcome": outcome}} if card else None
    rule = {"name": "everyone", "split": [["v1", 1_000_000]]}
    versions = {"v1": {"card": told}, "v2": {"card": told}}
    return {"models": {"mortgage": {"versions": versions, "rules": [rule],
                                    "monitor": {"groups": ["race"]}}}}  # fmt: skip


def found(guards: str, told: dict[str, Any], more: str = "") -> str:
    text = more + FILE.replace("guards: [errors]", f"guards: [{guards}]")
    settings = check_document(text.encode(), "x", RolloutSettings)[0]
    assert settings is not None
    return "; ".join(f"{key}: {words}" for key, words in misfits(settings, told))


@pytest.mark.parametrize(
    ("guards", "words"),
    [
        ("errors, latency_p99, tokens, disagreement", ""),
        ("flips, accuracy, score_shift, {name: fairness, by: race}", ""),
        ("{name: accuracy, phase: shadow}", ""),
        ("{name: fairness, by: sex}", "'sex' is no group of monitor.groups: race"),
    ],
)
def test_what_no_record_can_answer_is_refused(guards, words):
    """Rather than waited for; what can be answered is taken."""
    said = found(guards, document())
    assert words in said
    assert bool(words) == bool(said)


@pytest.mark.parametrize("guard", ["flips", "accuracy", "{name: fairness, by: race}"])
@pytest.mark.parametrize("told", [document(None), document(card=False)])
def test_guards_of_outcomes_want_them(guard, told):
    """By the cards of both versions."""
    assert "wants cards with an outcome" in found(guard, told)


def test_scores_want_a_card():
    """Without an outcome there still are scores."""
    assert "no scores" in found("score_shift", document(card=False))
    assert found("score_shift", document(None)) == ""
