"""An alert that takes a version's share of a rule back: whose, of which rules, and whether it did.

`rollback_on` of a rule names causes of alerts by their first words. When such an alert of a version
that has a share and is not the stable one begins to stand, that share goes to the stable version.
Where a share goes is never guessed: an alert of the stable version moves nothing, and no former
revision's split is brought back, which may be the one that caused the alert. A rule that a running
rollout has is that one's (`on_alert`).

An alert does so once for each time that it begins. Whoever brings the share back while it stands
(a revert is never held up) is not overruled: the chain of revisions says that it was done, so a
restart knows it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.declaration import MILLION
from gateway.revision.freeze import Alerts, shares_of

ORIGIN = "alert"
NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class Retreat:
    """`alerts`: all that ask for it now; `since`: when the newest of them began, in ns."""

    model: str
    rule: str
    version: str
    stable: str
    alerts: tuple[str, ...]
    since: int

    @property
    def move(self) -> str:
        return f"rule {self.rule} of model {self.model}: {self.version} back to {self.stable}"

    @property
    def reason(self) -> str:
        named = ", ".join(self.alerts[:NAMED_MAX])
        rest = len(self.alerts) - NAMED_MAX
        return f"{self.move}: alert {named}" + (f" and {rest} more" if rest > 0 else "")


def retreats(document: Mapping[str, Any], alerts: Alerts) -> Iterator[Retreat]:
    """What alerts that stand ask of a table."""
    for name, model in document["models"].items():
        for rule in model["rules"]:
            causes = tuple(rule.get("rollback_on") or ())
            if not causes or rule.get("rollout"):
                continue
            (stable, _), *_ = rule["split"]
            for version, share in shares_of(rule).items():
                if version == stable or not share:
                    continue
                asking = {
                    identity: int(alert.get("since", 0))
                    for identity, alert in alerts.items()
                    if (alert["model"], alert["version"]) == (name, version)
                    and alert["cause"].startswith(causes)
                }
                if asking:
                    named = tuple(sorted(asking))
                    yield Retreat(name, rule["name"], version, stable, named, max(asking.values()))


def is_done(retreat: Retreat, history: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a revision, the newest first, made this move since the newest alert began."""
    for told in history:
        if told["created"] < retreat.since:
            return False
        if told["origin"] == ORIGIN and told["reason"].startswith(f"{retreat.move}: "):
            return True
    return False


def take_share(rule: dict[str, Any], version: str) -> None:
    """Give a version's share of a document's rule to the stable one."""
    (stable, told), *others = rule["split"]
    kept = [[name, 0 if name == version else share] for name, share in others]
    rest = MILLION - sum(share or 0 for _, share in kept)
    rule["split"] = [[stable, told if told is None else rest], *kept]
