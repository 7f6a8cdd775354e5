"""What the table in force says of an attempt, held against what it should say: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.revision.merge import digest
from gateway.revision.revisions import rests_on, rule_of
from gateway.rollout.attempt import Attempt
from gateway.rollout.lifecycle import is_paused
from gateway.rollout.rolloutsettings import RolloutSettings

Entry = dict[str, Any]


def is_narrower(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an entry exposes nobody who the wanted one does not."""
    shares = ("weight_ppm", "shadow_ppm")
    return all(held[key] <= wanted[key] for key in shares)


def held_by(document: Mapping[str, Any], attempt: Attempt) -> Entry | None:
    """What the table says of the attempt; None: nothing."""
    try:
        found = rule_of(document, attempt.settings.model, attempt.settings.rule).get("rollout")
    except LookupError:
        return None
    ours = found is not None and (found["name"], found["attempt"]) == (attempt.name, attempt.number)
    return found if ours else None


def artifacts_of(document: Mapping[str, Any], settings: RolloutSettings) -> dict[str, str | None]:
    """Digests of both versions' artifacts; a version that is not there is left out."""
    versions = document["models"].get(settings.model, {"versions": {}})["versions"]
    names = (settings.from_, settings.to)
    return {name: versions[name]["artifact"] for name in names if name in versions}


def basis_of(document: Mapping[str, Any], settings: RolloutSettings) -> str | None:
    """Digest of all that a rollout rests on; None: its model is gone."""
    if settings.model not in document["models"]:
        return None
    versions = {"from": settings.from_, "to": settings.to}
    return digest(rests_on(document, settings.model, versions))


def is_swapped(document: Mapping[str, Any], attempt: Attempt) -> bool:
    """Whether its versions, units or groups are no longer what they were when it was created."""
    created, settings = attempt.created, attempt.settings
    if artifacts_of(document, settings) != created["artifacts"]:
        return True
    return "basis" in created and basis_of(document, settings) != created["basis"]


def resumed_over(document: Mapping[str, Any], attempt: Attempt) -> Entry | None:
    """The smaller weight that a revision gave it, and that a person goes on from; None: none."""
    wanted, held = attempt.entry(), held_by(document, attempt)
    if wanted is None or held is None or not is_paused(attempt.stage):
        return None
    return held if is_narrower(held, wanted) else None
