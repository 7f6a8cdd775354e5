"""Whether a rollout can run on the table in force: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.revision.revisions import rule_of
from gateway.rollout.rolloutsettings import RolloutSettings

Found = tuple[str, str]
"""A key of the rollout's file, and what is wrong with it."""


OF_OUTCOMES = ("flips", "positive_rate_gap", "label_correct")
"""Metrics of decisions, favourable or adverse."""


def misfits(settings: RolloutSettings, document: Mapping[str, Any]) -> Iterator[Found]:
    """Everything that is wrong, at once. `document`: the table's, of the revision in force."""
    model = document["models"].get(settings.model)
    if model is None:
        known = ", ".join(document["models"])
        yield "model", f"no model {settings.model!r}; known: {known}"
        return
    for key, version in (("from", settings.from_), ("to", settings.to)):
        if version not in model["versions"]:
            yield key, f"no such version; known: {', '.join(model['versions'])}"
            return
    yield from _rule(settings, document)
    yield from _schema(settings, model["versions"])
    yield from _unanswerable(settings, model["versions"])
    groups = set(model["monitor"]["groups"])
    for guard in settings.guards:
        if guard.by is not None and guard.by not in groups:
            known = ", ".join(sorted(groups)) or "none"
            yield "guards", f"{guard.name}: {guard.by!r} is no group of monitor.groups: {known}"


def _rule(settings: RolloutSettings, document: Mapping[str, Any]) -> Iterator[Found]:
    try:
        rule = rule_of(document, settings.model, settings.rule)
    except LookupError:
        names = [one["name"] for one in document["models"][settings.model]["rules"]]
        yield "rule", f"no such rule; known: {', '.join(names)}"
        return
    if (held := rule.get("rollout")) is not None:
        yield "rule", f"it belongs to rollout {held['name']!r}"
    (stable, _), *others = rule["split"]
    if stable != settings.from_:
        yield "from", f"the rule's stable version is {stable}"
    if rule.get("sticky") and any(not guard.of_pairs for guard in settings.guards):
        words = "it is sticky: who keeps a version is not drawn anew, and guards would compare "
        yield "rule", words + "arms that differ; take `sticky` away, or judge pairs alone"
    if any(share for _, share in others):
        told = ", ".join(f"{version}: {(share or 0) / 10_000:g}%" for version, share in others)
        yield "rule", f"its split gives other versions a share ({told}); all has to be on `from`"


def _schema(settings: RolloutSettings, versions: Mapping[str, Any]) -> Iterator[Found]:
    """What `to` wants to be sent must be what `from` is sent, and it must answer in its words."""
    before, after = versions[settings.from_]["card"], versions[settings.to]["card"]
    if before is None or after is None:
        return
    sent = {one["name"]: one for one in before["features"]}
    for feature in after["features"]:
        if not feature["used"]:
            continue
        known = sent.get(feature["name"])
        if known is None:
            yield "to", f"it reads feature {feature['name']!r}, which {settings.from_} is not sent"
        elif known["type"] != feature["type"]:
            yield "to", f"feature {feature['name']!r} is {known['type']} and {feature['type']}"
    one, other = before["outputs"]["outcome"], after["outputs"]["outcome"]
    words = ("below", "at_or_above", "adverse")
    if one and other and {one[word] for word in words[:2]} != {other[word] for word in words[:2]}:
        yield "to", "its outcomes have other words: no answer of it could be compared"
    elif one and other and one["adverse"] != other["adverse"]:
        yield "to", f"its adverse outcome is {other['adverse']!r}, not {one['adverse']!r}"
    elif bool(one) != bool(other):
        yield "to", "one of both versions has outcomes and the other has none"


def _unanswerable(settings: RolloutSettings, versions: Mapping[str, Any]) -> Iterator[Found]:
    """Settings that would be taken and never act: no record could answer what they ask."""
    cards = [versions[name]["card"] for name in (settings.from_, settings.to)]
    for guard in settings.guards:
        if guard.metric == "score" and None in cards:
            yield "guards", f"{guard.name}: without a card of both versions there are no scores"
        if guard.metric in OF_OUTCOMES and not all(one and _outcome(one) for one in cards):
            yield "guards", f"{guard.name}: {guard.metric} wants cards with an outcome, of both"


def _outcome(card: Mapping[str, Any]) -> Any:
    return card["outputs"]["outcome"]
