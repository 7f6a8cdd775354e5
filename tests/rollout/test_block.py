"""Blocks: canonical, exact both ways, refused when no traffic can give them."""

from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rollout import block as blocks
from gateway.rollout import histogram
from gateway.rollout.block import (
    ArmCounts,
    BadBlock,
    Block,
    GroupCounts,
    PairCounts,
    PairGroup,
    added,
)

BLOCK = Block(
    rollout="fraud-v8", attempt=2, number=17, began=170_000_000_000, ended=180_000_000_000, step=1,
    canary=ArmCounts(
        exchanges=120, bad_exchanges=3, latency_all=histogram.of([900.0, 5000.0, 5000.0]),
        units=80, bad_units=2, latency=histogram.of([900.0, 5000.0]),
        groups={"race=black": GroupCounts(10, 1, 12, 7)}, scores=(1, 0, 4), right=3, wrong=1,
        tokens=900, degraded_s=1.5,
    ),
    control=ArmCounts(exchanges=118, units=82, latency=histogram.of([800.0])),
    pairs=PairCounts(eligible=50, compared=49, units=40, disagreements=3, flips=1, triples=2, n10=1,
                     groups={"race=black": PairGroup(10, 1, 0)}),
    late=2,
)  # fmt: skip


def test_a_block_is_the_same_after_its_json():
    """What is written is what is read, byte for byte, and canonical."""
    body = BLOCK.encode()
    assert BLOCK == Block.decode(body)
    assert body == Block.decode(body).encode()
    assert body == orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    assert b'"control":{"exchanges":118,"latency":' in body


def test_an_empty_block_is_short():
    """Counts of zero are left out."""
    empty = Block("r", 1, 0, 0, 1, 0)
    assert empty.encode() == (
        b'{"attempt":1,"began":0,"ended":1,"format":1,"number":0,"rollout":"r","step":0}'
    )
    assert empty == Block.decode(empty.encode())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format: 2 is not 1"),
        ({"rollout": ""}, "rollout: '' is not"),
        ({"attempt": -1}, "attempt: '-1' is not"),
        ({"attempt": True}, "attempt"),
        ({"ended": 0, "began": 0}, "ended: not after began"),
        ({"surprise": 1}, "surprise: no such field"),
        ({"canary": {"units": 1, "bad_units": 2}}, "canary.bad_units: more than canary.units"),
        ({"canary": {"latency": [[3, 1], [2, 1]]}}, "canary.latency: ascending"),
        ({"canary": {"latency": [[526, 1]]}}, "canary.latency: ascending"),
        ({"canary": {"latency": 7}}, "canary.latency: pairs"),
        ({"canary": {"groups": {"a=b": {"units": 1, "bad_units": 4}}}}, "canary.groups.a=b"),
        ({"canary": {"groups": {str(n): {} for n in range(65)}}}, "canary.groups: an object"),
        ({"canary": 3}, "canary: not an object"),
        ({"canary": {"degraded_s": float("nan")}}, "canary.degraded_s"),
        ({"canary": {"cost": 1.5}}, "canary.cost: no such field"),
        ({"lost": 1}, "lost: no such field"),
        ({"pairs": {"triples": 1, "n10": 1, "n01": 1}}, "pairs: n10 and n01"),
        ({"pairs": {"eligible": 1, "compared": 2}}, "pairs.compared: more than"),
    ],
)
def test_what_no_traffic_gives_is_refused(change, said):
    """The refusal names the field."""
    with pytest.raises(BadBlock, match=said.replace(".", r"\.")):
        Block.read({**Block("r", 1, 0, 0, 1, 0).to_json(), **change})


def test_a_block_needs_its_numbers():
    """A document without its place in time is no block."""
    told = BLOCK.to_json()
    del told["began"]
    with pytest.raises(BadBlock, match="began"):
        Block.read(told)
    with pytest.raises(BadBlock, match="not JSON"):
        Block.decode(b"{")
    with pytest.raises(BadBlock, match="not an object"):
        Block.decode(b"[]")


def test_arms_add_up():
    """Adding an arm to nothing changes nothing; adding it to itself doubles every count."""
    arm = BLOCK.canary
    assert arm == added(arm, ArmCounts()) == added(ArmCounts(), arm)
    twice = added(arm, arm)
    assert (160, 4, 1800) == (twice.units, twice.bad_units, twice.tokens)
    assert GroupCounts(20, 2, 24, 14) == twice.groups["race=black"]
    assert (2, 0, 8) == twice.scores
    assert 4 == histogram.size(twice.latency)


counts = st.integers(0, 10**12)


@settings(deadline=None)
@given(units=counts, bad=counts, span=st.floats(0, 1e15), number=counts)
def test_large_counts_survive(units, bad, span, number):
    """No count is rounded on its way through JSON."""
    arm = ArmCounts(units=max(units, bad), bad_units=min(units, bad), degraded_s=span)
    block = replace(BLOCK, canary=arm, number=number)
    assert block == Block.decode(block.encode())


def test_a_full_block_fits_its_leaf():
    """With every group, bin and latency bucket in use, a block is an entry of a tile log."""
    full = tuple((bucket, 99_999) for bucket in range(120, 420))
    arm = ArmCounts(
        exchanges=10**7, units=10**7, latency=full, latency_all=full,
        scores=(10**6,) * blocks.SCORE_BINS_MAX,
        groups={f"region={n:016}": GroupCounts(10**5, 10**4, 10**5, 10**5)
                for n in range(blocks.GROUPS_MAX)},
    )  # fmt: skip
    assert len(replace(BLOCK, canary=arm, control=arm).encode()) < 60_000
