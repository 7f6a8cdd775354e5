"""What the catalog knows of shadows' comparisons; counts and examples of a model since a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.clock import isoformat

EXAMPLES = 5
"""Of each reason, drawn by a hash of their ids: the same ones whenever they are asked for."""
SEGMENT_KEYS = ("rule", "caller")
QUANTILES = {"p50": 0.5, "p95": 0.95, "most": 1.0}
Counts = dict[str, int]


@dataclass(slots=True)
class Compared:
    """One shadow version's. Exchanges, but for `decisions` (all, disagreeing), words and segments,
    which count decisions: rows of exchanges."""

    n: int = 0
    disagree: int = 0
    decisions: tuple[int, int] = (0, 0)
    missing: Counts = field(default_factory=dict)
    against: Counts = field(default_factory=dict)
    words: dict[str, Counts] = field(default_factory=lambda: defaultdict(dict))
    severity: dict[str, float] | None = None
    apart: dict[str, float] | None = None
    latency: dict[str, dict[str, float]] | None = None
    triples: tuple[int, int, int] = (0, 0, 0)
    segments: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    likeness: tuple[int, float, float, float] = (0, 0.0, 0.0, 0.0)
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Noise:
    """Second answers of a version that agreed or not with its own first ones."""

    n: int
    disagree: int


def compared(cursor: Any, model: str, since: int) -> dict[str, Compared]:
    """By shadow version; `since` in ns."""
    found: dict[str, Compared] = defaultdict(Compared)
    _count(cursor, found, model, since)
    _missing(cursor, found, model, since)
    _words(cursor, found, model, since)
    _quantiles(cursor, found, model, since)
    _sums(cursor, found, model, since)
    _segments(cursor, found, model, since)
    _examples(cursor, found, model, since)
    return dict(sorted(found.items()))


def noise(cursor: Any, model: str, since: int) -> Mapping[str, Noise]:
    """By the version that answered."""
    rows = cursor.execute(
        "SELECT version, count(*), count(*) FILTER (agree = 0) FROM comparisons "
        "WHERE model = ? AND arrived >= ? AND noise = 1 AND agree IS NOT NULL GROUP BY ALL",
        [model, since],
    ).fetchall()
    return {version: Noise(n, disagree) for version, n, disagree in rows}


_SHADOWS = "FROM comparisons WHERE model = ? AND arrived >= ? AND noise = 0"


def _count(cursor: Any, found: dict[str, Compared], model: str, since: int) -> None:
    rows = cursor.execute(
        "SELECT version, of_version, count(*), count(*) FILTER (agree = 0), "
        f"sum(row_count)::BIGINT, sum(disagree)::BIGINT {_SHADOWS} AND agree IS NOT NULL "
        "GROUP BY ALL",
        [model, since],
    ).fetchall()
    for version, of, n, disagree, decisions, differing in rows:
        one = found[version]
        one.n += n
        one.disagree += disagree
        one.decisions = (one.decisions[0] + decisions, one.decisions[1] + differing)
        one.against[of] = n


def _missing(cursor: Any, found: dict[str, Compared], model: str, since: int) -> None:
    rows = cursor.execute(
        f"SELECT version, why, count(*) {_SHADOWS} AND agree IS NULL GROUP BY ALL UNION ALL "
        "SELECT version, reason, sum(count)::BIGINT FROM not_copied "
        "WHERE model = ? AND arrived >= ? GROUP BY ALL",
        [model, since, model, since],
    ).fetchall()
    for version, why, n in rows:
        found[version].missing[why] = found[version].missing.get(why, 0) + n


def _words(cursor: Any, found: dict[str, Compared], model: str, since: int) -> None:
    rows = cursor.execute(
        "SELECT version, sort, word, sum(count)::BIGINT FROM compared_words "
        "WHERE model = ? AND arrived >= ? AND noise = 0 GROUP BY ALL ORDER BY ALL",
        [model, since],
    ).fetchall()
    for version, sort, word, n in rows:
        found[version].words[sort][word] = n


def _quantiles(cursor: Any, found: dict[str, Compared], model: str, since: int) -> None:
    wanted = list(QUANTILES.values())
    severe = cursor.execute(
        f"SELECT version, quantile_cont(severity, ?) {_SHADOWS} AND agree = 0 GROUP BY ALL",
        [wanted, model, since],
    ).fetchall()
    for version, values in severe:
        found[version].severity = dict(zip(QUANTILES, values))
    apart = cursor.execute(
        "SELECT s.version, quantile_cont(abs(s.score - p.score), ?) FROM decisions s "
        'JOIN decisions p ON p.id = s.primary_id AND p."row" = s."row" '
        "WHERE s.model = ? AND s.arrived >= ? AND s.arm = 'shadow' AND s.version != p.version "
        "GROUP BY ALL",
        [wanted, model, since],
    ).fetchall()
    for version, values in apart:
        found[version].apart = dict(zip(QUANTILES, values))
    times = cursor.execute(
        "SELECT c.version, quantile_cont(p.total_us / 1000, $2), "
        "quantile_cont(s.total_us / 1000, $2) "
        "FROM comparisons c JOIN exchanges s ON s.id = c.id "
        "JOIN exchanges p ON p.id = c.primary_id "
        "WHERE c.model = $1 AND c.arrived >= $3 AND c.noise = 0 AND s.status = 200 GROUP BY ALL",
        {"1": model, "2": wanted, "3": since},
    ).fetchall()
    for version, given, shadow in times:
        both = {"given": given, "shadow": shadow}
        found[version].latency = {
            name: dict(zip(QUANTILES, values)) for name, values in both.items()
        }


def _sums(cursor: Any, found: dict[str, Compared], model: str, since: int) -> None:
    asked = [model, since]
    where = "WHERE model = ? AND arrived >= ? GROUP BY ALL"
    for version, *counts in cursor.execute(
        f"SELECT version, count(*), sum(n10)::BIGINT, sum(n01)::BIGINT FROM triples {where}", asked
    ).fetchall():
        found[version].triples = tuple(counts)
    for version, *sums in cursor.execute(
        "SELECT version, sum(n)::BIGINT, sum(top), sum(signs), sum(ranks) "
        f"FROM likeness {where}", asked
    ).fetchall():  # fmt: skip
        found[version].likeness = tuple(sums)


def _segments(cursor: Any, found: dict[str, Compared], model: str, since: int) -> None:
    for key in SEGMENT_KEYS:
        rows = cursor.execute(
            f"SELECT version, {key}, sum(row_count)::BIGINT, sum(disagree)::BIGINT {_SHADOWS} "
            f"AND agree IS NOT NULL AND {key} IS NOT NULL GROUP BY ALL",
            [model, since],
        ).fetchall()
        for version, value, n, disagree in rows:
            found[version].segments[key, value] = (n, disagree)
    rows = cursor.execute(
        "SELECT version, key, value, sum(n)::BIGINT, sum(disagree)::BIGINT FROM segments "
        "WHERE model = ? AND arrived >= ? GROUP BY ALL",
        [model, since],
    ).fetchall()
    for version, key, value, n, disagree in rows:
        found[version].segments[key, value] = (n, disagree)


def _examples(cursor: Any, found: dict[str, Compared], model: str, since: int) -> None:
    rows = cursor.execute(
        "SELECT version, reason, direction, severity, id, primary_id, arrived, worst_row "
        f"{_SHADOWS} AND agree = 0 QUALIFY row_number() OVER "
        "(PARTITION BY version, reason, direction ORDER BY hash(id)) <= ? "
        "ORDER BY version, reason, direction, severity DESC",
        [model, since, EXAMPLES],
    ).fetchall()
    for version, reason, direction, severity, identity, primary, arrived, row in rows:
        found[version].examples.append(
            {"reason": reason, "direction": direction, "severity": severity,
             "id": f"{identity}/{row}", "primary": f"{primary}/{row}", "at": isoformat(arrived)}
        )  # fmt: skip
