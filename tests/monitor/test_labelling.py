"""Labels meet decisions in any order of their leaves, and the counts come out the same."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog import labels
from gateway.catalog.rows import rows_of
from gateway.catalog.store import Catalog
from gateway.console.performance import performed
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
    made._leaf = lambda number: leaves[number]
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
    lengths = {"b": 2 * COUNTS_AT_MOST + 1, "a": COUNTS_AT_MOST, "c": 0}
    changes = {model: [[model, n] for n in range(length)] for model, length in lengths.items()}
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


COPIES = [f"01939b1e-7000-7000-9000-00000000000{n}" for n in range(4)]


def copied(place: int, noise: bool = False):
    """A shadow's leaf, or a second answer's."""
    leaf = exchange(COPIES[place])
    leaf["record"] |= {"primary": IDS[place], "arm": "shadow"}
    if noise:
        leaf["record"]["noise"] = True
        leaf["comparison"] = {"noise": True, "agree": True, "kind": "decision", "rows": 1}
    return leaf


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_shadow_has_the_label_of_the_decision_that_was_given(chunk):
    """With its own arm; corrected with it; a second answer has none."""
    leaves = [exchange(IDS[0]), copied(0), exchange(IDS[1]), copied(1, noise=True),
              feedback([(0, 1, 1), (1, 1, 1)]), feedback([(0, 0, 2)])]  # fmt: skip
    place = ("2026-11-18", "race")
    assert fold(leaves, chunk) == {
        ("v1", "stable", *place, "b", 1, 0): 1,
        ("v1", "shadow", *place, "b", 1, 0): 1,
        ("v1", "stable", *place, "a", 1, 1): 1,
    }


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_label_of_a_shadows_own_id_counts_nowhere(chunk):
    """Told before its leaf is there or after: it is in no group, and is of no decision."""
    own = [{"kind": "feedback", "record": {"id": "f", "labels": [[COPIES[place], 0, 1, 1, "s"]]}}
           for place in (0, 1)]  # fmt: skip
    leaves = [own[0], exchange(IDS[0]), copied(0), exchange(IDS[1]), copied(1), own[1]]
    assert fold(leaves, chunk) == {}
    told = measured([*leaves, feedback([(0, 1, 1)])], {"r": table_of(0.5, "v1")})
    assert (told["labels"]["labels"], told["labels"]["decisions"], told["unmatched"]) == (1, 1, 2)
    assert {one["arm"]: one["labelled"] for one in told["cohorts"]} == {"stable": 1, "shadow": 1}


def test_a_cohort_is_measured_by_the_card_it_was_decided_with():
    """A day later the threshold is another and the version has a new card: the old day's figures
    stay, and so do those of a version that is gone."""
    tables = {"r": table_of(0.5, "v0", "v1"), "s": table_of(0.9, "v1")}
    leaves = [exchange(one) for one in IDS[:3]]
    leaves[1]["record"] |= {"revision": "s", "at": leaves[1]["record"]["at"] + 86_400 * 10**9}
    leaves[1]["decisions"] = [{"score": 0.75, "outcome": "deny"}]
    leaves[2]["record"] |= {"version": "v0"}
    leaves.append(feedback([(0, 1, 1), (1, 1, 1), (2, 1, 1)]))
    told = measured(leaves, tables)
    accuracy = {(one["version"], one["day"]): one["realised"]["figures"]["accuracy"]
                for one in told["cohorts"]}  # fmt: skip
    assert accuracy == {("v1", "2026-11-18"): 1.0, ("v1", "2026-11-19"): 0.0,
                        ("v0", "2026-11-18"): 1.0}  # fmt: skip


def test_cohorts_of_shadows_have_their_primaries_labels():
    """Live accuracy of a version that answers nobody; second answers are no decisions."""
    catalog = Catalog(None)
    leaves = [exchange(IDS[0]), copied(0), exchange(IDS[1]), copied(1, noise=True),
              feedback([(0, 0, 1), (1, 1, 1)])]  # fmt: skip
    for number, leaf in enumerate(leaves):
        for table, row in rows_of(number, leaf):
            catalog.add(table, row)
    catalog.commit(len(leaves), {})
    with closing(catalog.cursor()) as cursor:
        found = {one.arm: one for one in labels.cohorts(cursor, "m", 0)}
        assert {arm: (one.decisions, one.told) for arm, one in found.items()} == {
            "stable": (2, 2), "shadow": (1, 1)
        }  # fmt: skip
        scores, outcomes, values = labels.members(cursor, "m", found["shadow"])
    catalog.close()
    assert (scores.tolist(), outcomes, values) == ([0.75], ["approve"], [0])


def measured(leaves, tables):
    """What `performed` says of leaves, with these tables by revision; the last is in force."""
    catalog = Catalog(None)
    for number, leaf in enumerate(leaves):
        for name, row in rows_of(number, leaf):
            catalog.add(name, row)
    catalog.commit(len(leaves), {})
    store = SimpleNamespace(load=tables.__getitem__)
    with closing(catalog.cursor()) as cursor:
        told = performed(cursor, store, list(tables.values())[-1].models["m"], 0)
    catalog.close()
    return told


def table_of(threshold, *versions):
    words = SimpleNamespace(**vars(WORDS), threshold=threshold)
    outputs = SimpleNamespace(score=CARD.outputs.score, outcome=words)
    card = SimpleNamespace(card=SimpleNamespace(outputs=outputs))
    model = SimpleNamespace(name="m", versions=dict.fromkeys(versions, card))
    return SimpleNamespace(models={"m": model})


def test_accuracy_is_of_what_was_decided_then():
    """At noon the threshold went from 0.5 to 0.9. Before, 0.75 was `approve` and right; afterwards
    `deny`, and wrong: one of two, and not none, which today's threshold would say."""
    early, late = exchange(IDS[0]), exchange(IDS[1])
    late["record"] |= {"revision": "s", "at": late["record"]["at"] + 10**9}
    late["decisions"] = [{"score": 0.75, "outcome": "deny"}]
    told = measured([early, late, feedback([(0, 1, 1), (1, 1, 1)])],
                    {"r": table_of(0.5, "v1"), "s": table_of(0.9, "v1")})  # fmt: skip
    (cohort,) = told["cohorts"]
    assert cohort["realised"]["figures"]["accuracy"] == 0.5
    assert cohort["estimated"]["accuracy"] == pytest.approx((0.75 + 0.25) / 2)


def test_two_versions_are_compared_where_the_label_is_known():
    """On the same requests: what each had right then, with the interval and test of pairs."""
    leaves = []
    for place, (told_first, said) in enumerate([("approve", "approve"), ("approve", "deny"),
                                           ("deny", "approve"), ("deny", "deny")]):  # fmt: skip
        first, second = exchange(IDS[place]), copied(place)
        first["decisions"] = [{"score": 0.75, "outcome": told_first}]
        second["decisions"] = [{"score": 0.75, "outcome": said}]
        second["record"] |= {"version": "v2"}
        leaves += [first, second]
    leaves.append(feedback([(0, 1, 1), (1, 0, 1), (2, 1, 1), (3, None, 1)]))
    told = measured(leaves, {"r": table_of(0.5, "v1", "v2")})
    (pair,) = told["pairs"]
    assert (pair["version"], pair["against"], pair["n"]) == ("v2", "v1", 3)
    assert [pair[name] for name in ("both", "only_against", "only_version", "neither")] == [
        1, 0, 2, 0
    ]  # fmt: skip
    assert pair["difference"] == pytest.approx(2 / 3, abs=1e-5)
    assert pair["interval"][0] < pair["difference"] < pair["interval"][1]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([("a", 1, 1), ("b", True, 2), ("a", 1.0, 3), ("b", "approve", 4)], (0, 3, 0)),
        ([("a", 0, 1), ("a", "deny", 2), ("a", False, 3), ("a", 0.0, 4)], (0, 3, 0)),
        ([("a", 1, 1), ("b", "deny", 2)], (1, 0, 1)),
        ([("a", 0, 1), ("a", 1, 2), ("b", "approve", 3)], (1, 1, 0)),
        ([("a", 1, 1), ("b", 0, 2), ("b", None, 3)], (2, 0, 0)),
        ([("a", 3, 1), ("b", "3", 2)], (1, 0, 1)),
    ],
)
def test_labels_are_counted_by_what_they_say(told, expected):
    """1, 1.0, true and the card's word are one label: told again they correct nothing, and sources
    that say it so do not differ. What a source took back or corrected, it no longer says."""
    lines = [[IDS[0], 0, value, at, source] for source, value, at in told]
    leaves = [exchange(IDS[0]), {"kind": "feedback", "record": {"id": "f", "labels": lines}}]
    found = measured(leaves, {"r": table_of(0.5, "v1")})["labels"]
    assert (found["labels"], found["decisions"]) == (len(told), 1)
    assert (found["corrected"], found["duplicates"], found["contradicting"]) == expected


def test_of_a_quantity_numbers_are_compared_and_true_is_none():
    """7 and 7.0 are one value; `true` is no value of a quantity and not 1."""
    table = table_of(0.5, "v1")
    outputs = SimpleNamespace(score=SimpleNamespace(kind="quantity"), outcome=None)
    table.models["m"].versions["v1"].card = SimpleNamespace(outputs=outputs)
    lines = [[IDS[0], 0, value, at, f"s{at}"] for at, value in enumerate([7, 7.0])]
    lines += [[IDS[1], 0, value, at, f"s{at}"] for at, value in enumerate([1, True])]
    leaves = [exchange(IDS[0]), exchange(IDS[1]),
              {"kind": "feedback", "record": {"id": "f", "labels": lines}}]  # fmt: skip
    found = measured(leaves, {"r": table})["labels"]
    assert (found["duplicates"], found["corrected"], found["contradicting"]) == (1, 1, 1)
