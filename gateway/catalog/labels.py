"""What is known of decisions after them: labels in force, by the day of the decision.

A cohort is the decisions of one version and arm that were made on one day (UTC), however much later
their labels came: performance by the day of the label would mix easy cases with late ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

COHORT_ROWS_MAX = 500_000
"""Decisions of one cohort that are measured; the earliest of more."""
COHORTS_MAX = 400
ARMS = ("stable", "canary", "control", "shadow", "holdout", "fallback")
_DAY = "strftime(make_timestamp(arrived // 1000), '%Y-%m-%d')"
_IN_FORCE = """(SELECT id, "row", value FROM labels QUALIFY row_number() OVER (
PARTITION BY id, "row" ORDER BY observed DESC, leaf DESC, place DESC) = 1)"""
_LABEL = f"""LEFT JOIN {_IN_FORCE} l ON l.id = coalesce(d.primary_id, d.id) AND l."row" = d."row"
ANTI JOIN (SELECT id FROM comparisons WHERE noise = 1) n ON n.id = d.id"""
"""A shadow's decision has the label of the one that was given; a second answer is no further
decision."""
_GIVEN = 'd.id = l.id AND d."row" = l."row" AND d.primary_id IS NULL'
"""Nothing became of a shadow's answer: a label that names its own id is of no decision."""


Words = tuple[str, str]
"""What a card calls the side at or above its threshold, and the other, as labels are kept: JSON."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """`told`: decisions with a label in force, `null` ones not counted."""

    version: str
    arm: str
    day: str
    decisions: int
    told: int


def cohorts(cursor: Any, model: str, since: int) -> list[Cohort]:
    """The newest cohorts of a model, newest first; decisions from `since` (ns) on."""
    rows = cursor.execute(
        f"SELECT version, arm, {_DAY} AS day, count(*), count(l.value) FILTER (l.value != 'null') "
        f"FROM decisions d {_LABEL} "
        f"WHERE model = ? AND arrived >= ? AND arm IN {ARMS} "
        "GROUP BY ALL ORDER BY day DESC, version, arm LIMIT ?", [model, since, COHORTS_MAX]
    ).fetchall()  # fmt: skip
    return [Cohort(*row) for row in rows]


def revisions(cursor: Any, model: str, since: int) -> dict[tuple[str, str, str], str]:
    """By version, arm and day: the revision in force with the newest of its decisions."""
    rows = cursor.execute(
        f"SELECT version, arm, {_DAY} AS day, max_by(revision, leaf) FROM exchanges "
        f"WHERE model = ? AND arrived >= ? AND arm IN {ARMS} AND row_count > 0 "
        "GROUP BY ALL", [model, since]
    ).fetchall()  # fmt: skip
    return {(version, arm, day): revision for version, arm, day, revision in rows}


def members(
    cursor: Any, model: str, cohort: Cohort
) -> tuple[np.ndarray[Any, Any], list[str | None], list[Any]]:
    """Scores, outcomes and labels (None: no label) of a cohort, the earliest decisions first."""
    rows = cursor.execute(
        f"SELECT score, outcome, l.value FROM decisions d {_LABEL} "
        f"WHERE model = ? AND version = ? AND arm = ? AND {_DAY} = ? AND score IS NOT NULL "
        'ORDER BY d.leaf, d."row" LIMIT ?',
        [model, cohort.version, cohort.arm, cohort.day, COHORT_ROWS_MAX],
    ).fetchall()
    decoded: dict[str | None, Any] = {None: None}
    for _, _, text in rows:
        if text not in decoded:
            decoded[text] = orjson.loads(text)
    scores = np.array([score for score, _, _ in rows], dtype=np.float64)
    return scores, [outcome for _, outcome, _ in rows], [decoded[text] for *_, text in rows]


def pairs(
    cursor: Any, model: str, since: int
) -> list[tuple[str, str, str | None, str | None, Any, int]]:
    """Of labelled decisions from `since` (ns) on that a shadow decided as well: its version and the
    one that answered, both outcomes, the label, and how many there are."""
    rows = cursor.execute(
        "SELECT d.version, p.version, d.outcome, p.outcome, l.value, count(*) "
        f"FROM decisions d {_LABEL} "
        'JOIN decisions p ON p.id = d.primary_id AND p."row" = d."row" '
        "WHERE d.model = ? AND d.arrived >= ? AND d.arm = 'shadow' "
        "AND l.value IS NOT NULL AND l.value != 'null' AND p.version != d.version "
        "GROUP BY ALL ORDER BY ALL", [model, since]
    ).fetchall()  # fmt: skip
    return [(*row[:4], orjson.loads(row[4]), int(row[5])) for row in rows]


def tallies(cursor: Any, model: str, words: Mapping[str, Words]) -> dict[str, int]:
    """How feedback on a model's decisions was told. `corrected`: labels that changed one told
    before; `duplicates`: that did not; `contradicting`: decisions on which the last labels of two
    sources differ, those taken back left out. `words`: of versions that decide between two sides;
    there true is 1 and so is the side's word, false 0 and the other's; 1.0 is 1 everywhere."""
    cards = list(words.items())
    known = ", ".join(["(?, ?, ?)"] * len(cards)) or "(NULL, NULL, NULL)"
    row = cursor.execute(
        f"WITH cards(version, yes, no) AS (VALUES {known}), "
        'read AS (SELECT l.id, l."row", l.source, l.observed, l.leaf, l.place, CASE '
        "  WHEN c.yes IS NOT NULL AND value IN ('true', c.yes) THEN '1.0' "
        "  WHEN c.no IS NOT NULL AND value IN ('false', c.no) THEN '0.0' "
        "  ELSE coalesce(TRY_CAST(TRY_CAST(value AS DOUBLE) AS VARCHAR), value) END AS value "
        f"  FROM labels l JOIN decisions d ON {_GIVEN} "
        "  LEFT JOIN cards c ON c.version = d.version WHERE d.model = ?), "
        "told AS (SELECT *, value IS DISTINCT FROM lag(value) OVER w AS fresh, "
        "  row_number() OVER w AS nth FROM read "
        '  WINDOW w AS (PARTITION BY id, "row" ORDER BY observed, leaf, place)), '
        "last AS (SELECT id, \"row\", nullif(arg_max(value, nth), 'null') AS value FROM told "
        '  GROUP BY id, "row", source), '
        'each AS (SELECT count(DISTINCT value) > 1 AS differ FROM last GROUP BY id, "row") '
        "SELECT (SELECT count(*) FROM told), (SELECT count(*) FROM each), "
        "  (SELECT count(*) FROM told WHERE fresh AND nth > 1), "
        "  (SELECT count(*) FROM told WHERE NOT fresh AND nth > 1), "
        "  (SELECT count(*) FROM each WHERE differ)",
        [*(part for version, pair in cards for part in (version, *pair)), model],
    ).fetchone()
    names = ("labels", "decisions", "corrected", "duplicates", "contradicting")
    return dict(zip(names, row))


def unmatched(cursor: Any) -> int:
    """Labels of ids and rows that no decision given to anybody has, of whatever model."""
    row = cursor.execute(
        f"SELECT count(*) FROM labels l ANTI JOIN decisions d ON {_GIVEN}"
    ).fetchone()
    return int(row[0])


def leaves_of(cursor: Any, ids: list[str]) -> dict[str, int]:
    """Exchanges and their leaves, of those that the catalog holds."""
    if not ids:
        return {}
    marks = ", ".join(["?::UUID"] * len(ids))
    rows = cursor.execute(f"SELECT id, leaf FROM exchanges WHERE id IN ({marks})", ids).fetchall()
    return {str(identity): leaf for identity, leaf in rows}


def shadows_of(cursor: Any, ids: list[str]) -> dict[str, tuple[str, int]]:
    """Copies of exchanges, second answers left out: by their ids, the exchange's and their leaf."""
    if not ids:
        return {}
    marks = ", ".join(["?::UUID"] * len(ids))
    rows = cursor.execute(
        "SELECT e.id, e.primary_id, e.leaf FROM exchanges e "
        "ANTI JOIN (SELECT id FROM comparisons WHERE noise = 1) n ON n.id = e.id "
        f"WHERE e.primary_id IN ({marks})", ids
    ).fetchall()  # fmt: skip
    return {str(identity): (str(primary), leaf) for identity, primary, leaf in rows}


def told(cursor: Any, ids: list[str]) -> dict[tuple[str, int], list[tuple[int, int, int, Any]]]:
    """All that was told of these exchanges, by decision: observed, leaf, place, value."""
    if not ids:
        return {}
    marks = ", ".join(["?::UUID"] * len(ids))
    rows = cursor.execute(
        f'SELECT id, "row", observed, leaf, place, value FROM labels WHERE id IN ({marks})', ids
    ).fetchall()
    found: dict[tuple[str, int], list[tuple[int, int, int, Any]]] = {}
    for identity, row, observed, leaf, place, value in rows:
        known = found.setdefault((str(identity), row), [])
        known.append((observed, leaf, place, orjson.loads(value)))
    return found


def labelled(cursor: Any, model: str, since: str) -> list[tuple[Any, ...]]:
    """Version, arm, key, group, favourable, good, count, summed score, and both of the newer half
    of the labels; of days from `since` on."""
    rows: list[tuple[Any, ...]] = cursor.execute(
        "WITH told AS (SELECT * FROM labelled WHERE model = ? AND day >= ?), "
        "cut AS (SELECT median(leaf) AS leaf FROM told) "
        "SELECT version, arm, key, value, decided, actual, sum(count)::BIGINT, sum(score), "
        "  coalesce(sum(count) FILTER (told.leaf > cut.leaf), 0)::BIGINT, "
        "  coalesce(sum(score) FILTER (told.leaf > cut.leaf), 0.0) FROM told, cut "
        "GROUP BY ALL HAVING sum(count) != 0 ORDER BY ALL", [model, since]
    ).fetchall()  # fmt: skip
    return rows


def window_members(cursor: Any, model: str, since: str) -> list[tuple[Any, ...]]:
    """Version, arm, key, group, decisions; of closed windows, by days from `since` on."""
    rows: list[tuple[Any, ...]] = cursor.execute(
        "WITH seen AS (SELECT version, arm, unnest(from_json("
        "  json_extract(document, '$.report.members'), "
        """  '[{"day":"VARCHAR","key":"VARCHAR","value":"VARCHAR","n":"BIGINT"}]')) AS one """
        "  FROM windows WHERE model = ?) "
        "SELECT version, arm, one.key, one.value, sum(one.n)::BIGINT FROM seen "
        "WHERE one.day >= ? GROUP BY ALL ORDER BY ALL", [model, since]
    ).fetchall()  # fmt: skip
    return rows
