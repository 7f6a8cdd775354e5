"""Labels meet decisions in any order of their leaves, and the counts come out the same."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog.rows import rows_of
from gateway.catalog.store import Catalog
from gateway.journal.record import EMPTY, encode_parts
from gateway.monitor.labelling import Labelling, records_of
from gateway.monitor.outcomes import COUNTS_AT_MOST

IDS = [f"01939b1e-7000-7000-8000-00000000000{n}" for n in range(4)]
WORDS = SimpleNamespace(below="deny", at_or_above="approve", adverse="deny")
CARD = SimpleNamespace(
    outputs=SimpleNamespace(score=SimpleNamespace(kind="probability"), outcome=WORDS)
)
MODEL = SimpleNamespace(versions={"v1": SimpleNamespace(card=CARD)}, monitor={"groups": ["race"]})
TABLE = SimpleNamespace(models={"m": MODEL})


def exchange(identity: str):
    record = {"id": identity, "at": 1_795_000_000 * 10**9, "model": "m", "version": "v1",
              "arm": "stable", "status": 200, "revision": "r",
              "timings": {"total_us": 1}}  # fmt: skip
    decisions = [{"score": 0.75, "outcome": "approve"}]
    return {"kind": "exchange", "record": record, "decisions": decisions, "body": {}}


def feedback(labels):
    record = {"id": "f", "labels": [[IDS[i], 0, value, at, "s"] for i, value, at in labels]}
    return {"kind": "feedback", "record": record}


class Bodies:
    """Each exchange's context: even ones are of one group, odd ones of another."""

    def read(self, identity: str, place) -> bytes:
        race = "a" if int(identity[-1]) % 2 else "b"
        return encode_parts({"groups": [{"race": race}]}, EMPTY, EMPTY)


class OneEach:
    def read(self, identity: str, place) -> bytes:
        return encode_parts({"groups": [{"race": identity}]}, EMPTY, EMPTY)


def fold(leaves, chunk: int) -> Counter:
    """The sum of all changes, with a commit after each chunk; older leaves are found by number."""
    catalog = Catalog(None)
    made = Labelling(None, Bodies(), lambda _: TABLE, [])
    total: Counter = Counter()

    def find(cursor, ids):
        found = {identity: made._fresh[identity] for identity in ids if identity in made._fresh}
        rows = cursor.execute("SELECT id, leaf FROM exchanges").fetchall()
        return found | {str(i): leaves[leaf] for i, leaf in rows if str(i) in ids}

    made._leaves = find
    for number, leaf in enumerate(leaves):
        for table, row in rows_of(number, leaf):
            catalog.add(table, row)
        for rows in made.take(number, leaf, catalog).values():
            for *place, count, _ in rows:
                total[tuple(place)] += count
        if number % chunk == 0:
            catalog.commit(number, {})
            made.forget()
    catalog.close()
    return +total


told = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 1, None]), st.integers(0, 3)), min_size=1,
    max_size=4,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(told, min_size=1, max_size=4), st.randoms(), st.integers(1, 4))
def test_the_order_of_leaves_and_the_commits_change_nothing(batches, dice, chunk):
    """Decisions before or behind their labels, chunks of any length: the counts are those of the
    labels in force at the end."""
    leaves = [exchange(identity) for identity in IDS] + [feedback(labels) for labels in batches]
    positions = sorted(dice.sample(range(len(leaves)), len(IDS)))
    mixed, rest = [], leaves[len(IDS) :]
    for place in range(len(leaves)):
        mixed.append(leaves[positions.index(place)] if place in positions else rest.pop(0))
    held: dict[int, tuple] = {}
    for number, leaf in enumerate(one for one in mixed if one["kind"] == "feedback"):
        for place, (identity, _, value, at, _) in enumerate(leaf["record"]["labels"]):
            row = int(identity[-1])
            held[row] = max(held.get(row, (-1, -1, -1, None)), (at, number, place, value),
                            key=lambda one: one[:3])  # fmt: skip
    expected: Counter = Counter()
    for row, (*_, value) in held.items():
        if value is not None:
            group = "a" if row % 2 else "b"
            expected["v1", "stable", "2026-11-18", "race", group, 1, value] += 1
    assert fold(mixed, chunk) == expected


def test_as_many_leaves_as_the_counts_need():
    """One feedback may change more cells than a leaf holds: each of them is said once."""
    changes = {model: [[model, n] for n in range(length)]
               for model, length in (("b", 2 * COUNTS_AT_MOST + 1), ("a", COUNTS_AT_MOST), ("c", 0))}  # fmt: skip
    records = list(records_of(changes))
    assert [(one["model"], len(one["counts"])) for one in records] == [
        ("a", COUNTS_AT_MOST), ("b", COUNTS_AT_MOST), ("b", COUNTS_AT_MOST), ("b", 1),
    ]  # fmt: skip
    assert [count for one in records for count in one["counts"]] == changes["a"] + changes["b"]


def test_no_cell_is_lost_where_there_are_many():
    """A label for each of 500 decisions, each of a group of its own: 500 cells."""
    leaves = [exchange(f"01939b1e-7000-7000-8000-{n:012d}") for n in range(500)]
    made = Labelling(None, OneEach(), lambda _: TABLE, [])
    catalog = Catalog(None)
    for number, leaf in enumerate(leaves):
        made.take(number, leaf, catalog)
    labels = [[leaf["record"]["id"], 0, 1, 0, "s"] for leaf in leaves]
    told = made.take(500, {"kind": "feedback", "record": {"id": "f", "labels": labels}}, catalog)
    catalog.close()
    assert len({row[4] for row in told["m"]}) == 500
