"""What windows are held against is made once, whoever asks first, and waited for."""

from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import orjson
import pytest

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.explain.worker import Explanations
from gateway.monitor import yardsticks
from gateway.monitor.yardsticks import Made, Yardsticks
from gateway.table import compile_table, make_document

MODELS = Path(__file__).parents[2] / "models" / "mortgage"
TEXT = f"""
models:
  mortgage:
    versions: {{v1: {{artifact: {MODELS}/v1}}, v2: {{artifact: {MODELS}/v2}}}}
    rules: [{{name: all, split: {{v1: 100%}}}}]
    explain: {{background: {MODELS}/background.parquet}}
    monitor: {{reference: {MODELS}/reference.parquet}}
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "headworks.yaml").write_text(TEXT)
    artifacts = Artifacts(tmp_path / "state")
    document = make_document(
        check(tmp_path / "headworks.yaml"), artifacts, author="ana", reason="first", now_ns=1
    )
    return artifacts, compile_table(orjson.dumps(document))


def prepared(place):
    artifacts, table = place
    made = Yardsticks(artifacts, Explanations(artifacts))
    made.prepare(table)
    return made, table.models["mortgage"]


def test_what_was_prepared_is_not_made_again(place, monkeypatch):
    """The fold finds all of it: nothing is read, explained or calculated at a window's end."""
    made, model = prepared(place)
    calculated = yardsticks.attribution.null.cache_info().misses
    for name in ("read_parquet", "panel_of", "Scorer", "take"):
        monkeypatch.setattr(yardsticks, name, None)
    for version in model.versions.values():
        assert made.panel(model, version).tracks
        attributed = made.attributions(model, version)
        reference = made.whole_reference(model, version)
        assert "learned" in vars(reference.domain)
        yardsticks.attribution.chances(attributed, 500, yardsticks.WindowSettings.of(
            model.monitor).drift)  # fmt: skip
    assert yardsticks.attribution.null.cache_info().misses == calculated


def test_prepared_or_not_it_is_the_same(place):
    """Detectors and explained references do not hang on who made them."""
    made, model = prepared(place)
    artifacts, _ = place
    late = Yardsticks(artifacts, Explanations(artifacts))
    for version in model.versions.values():
        assert made.panel(model, version).digest == late.panel(model, version).digest
        one, other = (some.attributions(model, version) for some in (made, late))
        assert one.values.tobytes() == other.values.tobytes()


def test_whoever_asks_while_it_is_made_waits_for_it():
    """Never None and never made twice: a window that closes meanwhile is judged by all of it."""
    made, begun, may_end, told = Made(), Event(), Event(), []

    def slowly():
        begun.set()
        assert may_end.wait(60)
        return "made"

    first = Thread(target=lambda: told.append(made.get("key", slowly)))
    first.start()
    assert begun.wait(60)
    second = Thread(target=lambda: told.append(made.get("key", lambda: "made again")))
    second.start()
    assert made.get("other", lambda: "at once") == "at once"
    assert told == []
    may_end.set()
    first.join(60)
    second.join(60)
    assert told == ["made", "made"]


def test_what_fails_is_tried_again_by_the_next():
    """A file that could not be read is read when it can be."""
    made = Made()
    with pytest.raises(OSError, match="gone"):
        made.get("key", failing)
    assert not made._making
    assert made.get("key", lambda: 1) == 1


def test_what_was_made_first_makes_room(monkeypatch):
    """Memory is bounded; what is asked for again is made again, and is what it was."""
    monkeypatch.setattr(yardsticks, "MADE_MAX", 2)
    made, told = Made(), []

    def get(key):
        return made.get(key, lambda: told.append(key) or key.upper())

    assert [get(key) for key in "abbcca"] == list("ABBCCA")
    assert told == list("abca")
    assert len(made._things) == 2
    assert set(made._making) == set(made._things)


def failing():
    raise OSError("gone")


def test_preparing_ends_when_the_analyst_does(place, monkeypatch, caplog):
    """What waits is left; nothing is begun after the end."""
    artifacts, table = place
    made = Yardsticks(artifacts, Explanations(artifacts))
    begun, may_end = Event(), Event()

    def slowly(*_):
        begun.set()
        assert may_end.wait(60)

    monkeypatch.setattr(made, "reference", slowly)
    monkeypatch.setattr(made, "attributions", None)
    made.follow(table)
    made.follow(table)
    assert begun.wait(60)
    ending = Thread(target=made.close)
    ending.start()
    assert made._stopping.wait(60)
    may_end.set()
    ending.join(60)
    assert not ending.is_alive()
    assert caplog.text == ""


def test_what_cannot_be_prepared_does_not_end_the_preparing(place, monkeypatch, caplog):
    """One version's reference cannot be read: the other's is there."""
    artifacts, table = place
    made = Yardsticks(artifacts, Explanations(artifacts))
    model = table.models["mortgage"]
    broken = replace(model.versions["v1"], artifact="0" * 64)
    versions = {"v1": broken, "v2": model.versions["v2"]}
    made.prepare(replace(table, models={"mortgage": replace(model, versions=versions)}))
    assert "no reference of mortgage/v1" in caplog.text
    assert made.reference(model, broken) is None
    monkeypatch.setattr(yardsticks, "read_parquet", None)
    assert made.reference(model, model.versions["v2"]).rows
