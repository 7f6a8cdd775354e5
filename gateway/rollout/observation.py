"""What one sealed record says to a rollout: pure.

Intention to treat: an exchange counts for the arm that it was meant for, whoever answered it in the
end, and with the failure that made somebody else answer. Forced exchanges are no evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.card import Card
from gateway.protocol.dialects import dialect_of
from gateway.rollout.predictions import ROWS_MAX
from gateway.rollout.slices import Side, side
from gateway.split import Rollout

ARMS: Mapping[str, Side] = {"canary": "canary", "control": "control", "holdout": "control"}
PRIMARY = frozenset({"stable", "canary", "control", "holdout"})
UNAVAILABLE = "upstream_unavailable"
LEFT = 499
FAILED = 500
REFUSED = 400


@dataclass(frozen=True, slots=True)
class Observation:
    """One exchange. `side`: where it counts; None: on neither. `unit`: its digest, None where each
    exchange is a unit. `failed`: by the version's fault; `refused`: not answered as asked, whoever
    is to blame: in random arms that may be compared too. A client that left is neither, but the
    time until then counts: those who wait for a slow version would else be missing. `groups`, as
    `key=value`: one for all rows, or one a row; `favourable`, `scores`: by row, None where the card
    has no outcome."""

    id: str
    at: int
    arm: str
    version: str
    side: Side | None
    unit: str | None
    failed: bool
    refused: bool
    unavailable: bool
    inferred: bool
    total_us: int
    groups: tuple[tuple[str, ...], ...]
    favourable: tuple[bool | None, ...]
    scores: tuple[float, ...]
    tokens: int = 0


def observe(
    leaf: Mapping[str, Any],
    context: Mapping[str, Any],
    rollout: Rollout,
    card: Card | None,
    keys: tuple[str, ...],
) -> Observation | None:
    """None: the record is no answer, or no evidence. `rollout`: as the table said that the record
    was made under; `keys`: the monitored ones of `x-headworks-groups`."""
    record = leaf["record"]
    meant = record.get("assigned") or record
    status, arm = meant["status"], meant["arm"]
    if not status or arm in ("forced", "explain"):
        return None
    where = side(context.get("bucket", -1), rollout.weight_ppm, rollout.holdout_ppm)
    if ARMS.get(arm) != where:
        where = None
    decisions = () if "assigned" in record else leaf.get("decisions", ())
    return Observation(
        id=record["id"],
        at=record["at"],
        arm=arm,
        version=meant["version"],
        side=where,
        unit=None if record.get("unit") == "exchange" else context.get("unit"),
        failed=status >= FAILED,
        refused=status >= REFUSED and status != LEFT,
        unavailable=meant["error"] == UNAVAILABLE,
        inferred=_is_inference(record) and status == 200,
        total_us=record["timings"]["total_us"],
        groups=_groups(context.get("groups", ()), keys),
        favourable=tuple(_favourable(one["outcome"], card) for one in decisions),
        scores=tuple(one["score"] for one in decisions),
        tokens=_tokens(leaf),
    )


def _is_inference(record: Mapping[str, Any]) -> bool:
    """Of whatever protocol: what may be copied to shadows."""
    return record.get("operation") in dialect_of(record.get("protocol")).INFERENCES


def _groups(told: Any, keys: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"{key}={row[key]}" for key in keys if key in row) for row in told)


def _favourable(outcome: str | None, card: Card | None) -> bool | None:
    words = card.outputs.outcome if card is not None else None
    return None if words is None or outcome is None else outcome != words.adverse


def _tokens(leaf: Mapping[str, Any]) -> int:
    said = leaf.get("completion") or leaf["record"].get("completion") or {}
    parts = (said.get("prompt_tokens") or 0) + (said.get("completion_tokens") or 0)
    return int(said.get("total_tokens") or parts)


@dataclass(frozen=True, slots=True)
class Pair:
    """A shadow's answer beside its primary's. `triple`: where the primary was asked twice, whether
    the shadow alone differed and whether the second answer alone did. `gained`, `lost`: rows that
    only the shadow decides favourably, and that only the primary does; `favourable`: rows that the
    primary does. `primary`: the exchange it copies; `outcomes`: by row, whether the primary's and
    the shadow's was favourable, None where no outcome is told; for labels that come later."""

    at: int
    unit: str | None
    agree: bool
    flipped: bool
    triple: tuple[int, int] | None
    rows: int
    gained: int
    lost: int
    groups: tuple[str, ...]
    favourable: int = 0
    primary: str = ""
    outcomes: tuple[tuple[bool, bool] | None, ...] = ()


def observe_pair(
    leaf: Mapping[str, Any],
    context: Mapping[str, Any],
    target: str,
    card: Card | None,
    keys: tuple[str, ...],
) -> Pair | None:
    """What a shadow's leaf says of `target`; None: nothing, or it was not compared."""
    record, said = leaf["record"], leaf.get("comparison") or {}
    ours = record["version"] == target and not record.get("noise")
    triple = (said.get("triples") or {}).get(target)
    if "agree" not in said or not (ours or triple):
        return None
    told = said.get("directions") or ({said["direction"]: 1} if "direction" in said else {})
    groups = _groups(context.get("groups", ()), keys)
    gained, lost = _directions(told, card)
    favoured = [_favourable(one["outcome"], card) for one in leaf.get("decisions", ())]
    shadows = sum(map(bool, favoured))
    return Pair(
        at=record["at"],
        unit=None if record.get("unit") == "exchange" else context.get("unit"),
        agree=said["agree"],
        flipped=bool(told) and not said["agree"],
        triple=(triple[0], triple[1]) if triple else None,
        rows=said["rows"] if ours else 0,
        gained=gained,
        lost=lost,
        groups=groups[0] if len(set(groups)) == 1 else (),
        favourable=max(0, min(said["rows"] - gained, shadows - gained + lost)) if ours else 0,
        primary=str(record.get("primary", "")),
        outcomes=_outcomes(favoured, said) if ours else (),
    )


def _outcomes(
    favoured: list[bool | None], said: Mapping[str, Any]
) -> tuple[tuple[bool, bool] | None, ...]:
    """By row (primary, shadow): a row that turned was decided otherwise by the primary."""
    if said["kind"] != "decision" or said["rows"] != len(favoured):
        return ()
    turned = said.get("turned") if len(favoured) > 1 else [0] * ("direction" in said)
    if turned is None:  # of a release that did not say it
        return ()
    return tuple(
        None if good is None else (good != (row in turned), good)
        for row, good in enumerate(favoured[:ROWS_MAX])
    )


def _directions(told: Mapping[str, int], card: Card | None) -> tuple[int, int]:
    """(gained, lost) of counts by `approve>deny`."""
    words = card.outputs.outcome if card is not None else None
    if words is None:
        return 0, 0
    gained = lost = 0
    for direction, count in told.items():
        before, _, after = direction.partition(">")
        gained += count * (before == words.adverse != after)
        lost += count * (before != words.adverse == after)
    return gained, lost
