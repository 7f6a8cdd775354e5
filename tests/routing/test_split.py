"""Slices of a rollout: the published ones, and what holds at every weight."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.condition import HeaderIs
from gateway.declaration import MILLION
from gateway.split import Copied, Interval, Rollout, copied, shared

PPM = st.integers(0, MILLION)


def rollout(weight: int, holdout: int = 0, shadow: int = 0) -> Rollout:
    return Rollout.read(
        {"name": "trees", "attempt": 1, "from": "v1", "to": "v2", "weight_ppm": weight,
         "holdout_ppm": holdout, "shadow_ppm": shadow}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "slices"),
    [
        (rollout(0), []),
        (rollout(0, 10_000), [("holdout", 990_000, MILLION)]),
        (rollout(50_000), [("canary", 0, 50_000), ("control", 500_000, 550_000)]),
        (
            rollout(250_000, 10_000),
            [
                ("canary", 0, 250_000),
                ("control", 500_000, 750_000),
                ("holdout", 990_000, MILLION),
            ],
        ),
        (
            rollout(500_000, 10_000),
            [
                ("canary", 0, 500_000),
                ("control", 500_000, 990_000),
                ("holdout", 990_000, MILLION),
            ],
        ),
        (rollout(600_000), [("canary", 0, 600_000), ("control", 600_000, MILLION)]),
        (rollout(990_000, 10_000), [("canary", 0, 990_000), ("holdout", 990_000, MILLION)]),
        (rollout(MILLION), [("canary", 0, MILLION)]),
    ],
)
def test_published_slices(made: Rollout, slices: list[tuple[str, int, int]]) -> None:
    """These buckets are these arms in every release, for ever."""
    assert [(item.arm, item.low, item.high) for item in made.intervals()] == slices
    for item in made.intervals():
        assert item.version == ("v2" if item.arm == "canary" else "v1")


@given(PPM, PPM)
def test_slices_lie_apart_and_in_order(weight: int, holdout: int) -> None:
    """No bucket has two arms; canary and holdout have their whole shares."""
    assume(weight + holdout <= MILLION)
    made = rollout(weight, holdout)
    ends = [(item.low, item.high) for item in made.intervals()]
    assert ends == sorted(ends)
    assert all(one[1] <= other[0] for one, other in zip(ends, ends[1:], strict=False))
    width = {item.arm: item.high - item.low for item in made.intervals()}
    assert width.get("canary", 0) == weight
    assert width.get("holdout", 0) == holdout


@given(PPM, PPM)
def test_a_control_is_as_wide_as_what_is_compared(weight: int, holdout: int) -> None:
    """The compared part of the canary is as wide as the control, and all of it up to a share of
    one half less the holdout."""
    assume(weight + holdout <= MILLION)
    made = rollout(weight, holdout)
    width = {item.arm: item.high - item.low for item in made.intervals()}
    assert width.get("control", 0) == made.evidence_ppm <= weight
    if weight <= MILLION // 2 - holdout:
        assert made.evidence_ppm == weight


@given(PPM, PPM, st.integers(0, 300_000))
def test_a_growing_weight_takes_nobody_out_of_the_canary(one: int, other: int, hold: int) -> None:
    """Raising the weight only adds buckets; the holdout never moves."""
    less, more = sorted((one, other))
    assume(more + hold <= MILLION)

    def arms(weight: int) -> dict[str, Interval]:
        return {item.arm: item for item in rollout(weight, hold).intervals()}

    before, after = arms(less), arms(more)
    if "canary" in before:
        assert after["canary"].low == before["canary"].low == 0
        assert after["canary"].high >= before["canary"].high
    assert before.get("holdout") == after.get("holdout")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"weight_ppm": -1}, "weight_ppm: -1"),
        ({"weight_ppm": 990_001, "holdout_ppm": 10_000}, "more than all buckets"),
        ({"to": "v1"}, "from and to are both v1"),
    ],
)
def test_what_no_rollout_can_be(wrong: dict[str, object], words: str) -> None:
    """A document with an impossible share does not compile."""
    told = rollout(1000).to_json() | wrong
    with pytest.raises(ValueError, match=words):
        Rollout.read(told)


def test_a_rollout_is_read_as_it_was_written() -> None:
    """What the table says of it, both ways."""
    made = rollout(50_000, 10_000, 250_000)
    assert Rollout.read(made.to_json()) == made


def test_attempts_and_rules_draw_their_own_units() -> None:
    """The salt of the shared decisions: model, rule, rollout, attempt."""
    assert rollout(1).salt("mortgage", "everyone") == b"mortgage/everyone/trees#1"


def test_a_split_lies_side_by_side() -> None:
    """The first version takes what is left; the others lie from 0 upward in their order."""
    stable, intervals = shared([("v1", None), ("v3", 200_000), ("v2", 100_000)])
    assert stable == "v1"
    assert intervals == (Interval(0, 200_000, "v3"), Interval(200_000, 300_000, "v2"))


def test_a_rollout_copies_to_its_version_as_far_as_either_wants() -> None:
    """The file's shadows stay; the candidate's share is the larger one, without condition."""
    when = {"header": {"x-a": "b"}}
    shadowing = rollout(0, shadow=MILLION)
    assert copied([["v2", 100_000]], shadowing) == (Copied("v2", MILLION),)
    assert copied([["v2", 100_000], ["v3", 5]], None) == (Copied("v2", 100_000), Copied("v3", 5))
    assert copied([["v3", 5]], rollout(0, shadow=7)) == (Copied("v3", 5), Copied("v2", 7))
    assert copied([["v3", 5]], rollout(9)) == (Copied("v3", 5),)
    assert copied([["v2", MILLION, when]], rollout(0, shadow=7)) == (Copied("v2", 7),)
    (alone,) = copied([["v2", 5, when]], None)
    assert alone.conditions == (HeaderIs(b"x-a", b"b"),)


def test_a_split_may_hold_out_buckets() -> None:
    """The last buckets stay on the stable version under an arm of their own."""
    _, intervals = shared([("v1", None), ("v2", 100_000)], 50_000)
    assert intervals == (
        Interval(0, 100_000, "v2"),
        Interval(950_000, MILLION, "v1", "holdout"),
    )
