"""An alert that freezes a rule's split: what may not grow while it is not over. Pure.

`freeze_on` and `rollback_on` of a rule name causes of alerts by their first words. While an alert
of the model with such a cause is not resolved, no edit and no file may give another version than
the one that is stable now a larger share of the rule. Everything narrower goes, and so does taking
the causes out of the rule: that is an edit of its own, on record, and the next one may widen. A
revert is never held up, and a rollout that has the rule listens to alerts by its own file
(`on_alert`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.declaration import MILLION

Alerts = Mapping[str, Mapping[str, Any]]
"""By their ids, those that are not resolved."""


def freezing(model: str, rule: Mapping[str, Any], alerts: Alerts) -> list[str]:
    """The ids of the alerts that freeze a rule now."""
    named = (*(rule.get("freeze_on") or ()), *(rule.get("rollback_on") or ()))
    if not named:
        return []
    return sorted(
        identity
        for identity, alert in alerts.items()
        if alert["model"] == model and alert["cause"].startswith(named)
    )


def is_wider(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a version that is not stable in `before` has a larger share in `after`."""
    (stable, _), *_ = before["split"]
    was, shares = shares_of(before), shares_of(after)
    return any(
        share > was.get(version, 0) for version, share in shares.items() if version != stable
    )


def shares_of(rule: Mapping[str, Any]) -> dict[str, int]:
    """Parts per million by version; the first takes what the others leave."""
    (stable, _), *others = rule["split"]
    told = {version: share or 0 for version, share in others}
    return {stable: MILLION - sum(told.values()), **told}


def frozen_by(
    before: Mapping[str, Any], after: Mapping[str, Any], alerts: Alerts
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any], str]]:
    """Of two documents: model, rule as it is and as it should be, and the alert that forbids it."""
    for model, settings in after["models"].items():
        known = before["models"].get(model, {"rules": ()})["rules"]
        rules = {rule["name"]: rule for rule in known}
        for rule in settings["rules"]:
            was = rules.get(rule["name"])
            if was is None or not (held := freezing(model, was, alerts)):
                continue
            if is_wider(was, rule):
                yield model, was, rule, held[0]


def sentences(document: Mapping[str, Any], alerts: Alerts) -> list[str]:
    """What is frozen now, for people."""
    return [
        f"rule {rule['name']} of model {name} is frozen by alert {identity}"
        for name, model in document["models"].items()
        for rule in model["rules"]
        for identity in freezing(name, rule, alerts)
    ]
