"""A backtest counts what monitoring counts, and says where it stopped."""

import re
from types import SimpleNamespace

import pytest
from test_windows import place, stream  # noqa: F401

from gateway.monitor import backtest
from gateway.monitor.inference import Inference


def leaf(number: int, **more):
    record = {"id": f"id{number}", "at": number, "model": "mortgage", "version": "v1",
              "arm": "stable", "revision": "r", "operation": "infer", "status": 200}  # fmt: skip
    return number, {"kind": "exchange", "record": record | more}


@pytest.fixture
def told(place, monkeypatch):  # noqa: F811
    """What a backtest of some leaves says; each has one decision."""
    artifacts, model = place
    tables = SimpleNamespace(load=lambda _: SimpleNamespace(models={"mortgage": model}))
    (decision,) = stream(model, 1)
    found = Inference(model, model.versions["v1"])
    monkeypatch.setattr(Inference, "decisions", lambda *_: [decision])
    monkeypatch.setattr(backtest, "read_inference", lambda *_: found)

    def run(leaves):
        waiting = list(leaves)

        def read(ledger, bodies, count):
            some = waiting[:count]
            del waiting[:count]
            return some

        monkeypatch.setattr(backtest, "read_whole", read)
        return backtest.run_backtest(artifacts, tables, None, None, "mortgage", {})

    return run


def test_a_copy_that_measures_noise_is_no_further_decision(told):
    """As in monitoring: the same decision again."""
    leaves = [leaf(0), leaf(1, noise=True, arm="shadow"), leaf(2, arm="shadow")]
    assert told(leaves).decisions == 2


@pytest.mark.parametrize(("leaves", "stopped"), [(3, False), (4, True), (5, True)])
def test_it_says_when_it_did_not_come_to_the_end(told, monkeypatch, leaves, stopped):
    """By leaves, whether they have decisions or not."""
    monkeypatch.setattr(backtest, "CHUNK", 2)
    monkeypatch.setattr(backtest, "LEAVES_MAX", 4)
    found = told(leaf(number, model="another") for number in range(leaves))
    assert (found.decisions, found.stopped) == (0, stopped)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("foo", "1", "foo=1: no setting of `monitor` that can be tried; these can: window.count"),
        ("drift.alhpa", "0.05", "drift.alhpa=0.05: no setting of"),
        ("drift", "{alpha: 0.05}", "drift={alpha: 0.05}: no setting of"),
        ("reference", "a.parquet", "reference=a.parquet: a backtest does not change it"),
        ("drift.alpha", "7", "drift.alpha=7: Input should be less than"),
        ("drift.alpha", "[", "drift.alpha=[: not a value as YAML writes them"),
        ("slices", "3", "slices=3: Input should be a valid tuple"),
    ],
)
def test_what_cannot_be_tried_is_named(key, value, words):
    """With the setting and the value as they were written, and what may be tried."""
    with pytest.raises(ValueError, match=re.escape(words)):
        backtest.read_changes({key: value})


def test_what_can_be_tried_is_read():
    """As the file would read it."""
    changes = backtest.read_changes(
        {"drift.alpha": "0.05", "window.at_most": "2m", "slices": "[a]"}
    )
    assert changes == {"drift": {"alpha": 0.05}, "window": {"at_most": 120.0}, "slices": ["a"]}
