"""Requests that lack what the card names are in no window, and are an alert all the same."""

from types import SimpleNamespace

import orjson
import pytest
from test_windows import place, run, stream  # noqa: F401

from gateway.journal.record import EMPTY, Part, encode_parts
from gateway.monitor.alerts import Alerts
from gateway.monitor.inference import Readings, read_inference
from gateway.monitor.readability import BATCH, UNREADABLE_AT_LEAST
from gateway.monitor.report import WindowReport
from gateway.monitor.worker import Windows


def hear(windows, alerts, model, flags, at=0):
    """Tell the fold of exchanges, readable or not; the events of alerts."""
    events = []
    for number, readable in enumerate(flags, at):
        record = {"id": f"id{number}", "at": number, "arm": "stable"}
        for seen in windows.heard_of(model, model.versions["v1"], record, readable=readable):
            events += [one.event for one in alerts.take_sighting(seen)]
    return events


def test_a_renamed_feature_is_an_alert_at_the_fifth_exchange(place):  # noqa: F811
    """Nothing can be read any more, so no window will ever close: it is told at once, and once."""
    artifacts, model = place
    windows, alerts = Windows(artifacts, {}), Alerts({})
    assert hear(windows, alerts, model, [True] * 50 + [False] * (UNREADABLE_AT_LEAST - 1)) == []
    assert hear(windows, alerts, model, [False] * 300) == ["opened"]
    (told,) = alerts.to_json()["alerts"].values()
    assert (told["id"], told["severity"]) == ("mortgage/v1:quality/schema", "critical")
    assert told["evidence"]["exchanges"]["unreadable"] == UNREADABLE_AT_LEAST


def test_a_few_are_none_and_two_calm_batches_end_it(place):  # noqa: F811
    """Four of a hundred are no fault; windows of what can be read do not calm what cannot."""
    artifacts, model = place
    windows, alerts = Windows(artifacts, {}), Alerts({})
    few = ([False] * 4 + [True] * 96) * 5
    assert hear(windows, alerts, model, few) == []
    assert hear(windows, alerts, model, [False] * BATCH) == ["opened"]
    for decision in stream(model, 600):
        for one in windows.add(model, model.versions["v1"], "stable", decision):
            if isinstance(one, WindowReport):
                assert all(found.alert.cause != "quality/schema"
                           for found in alerts.take_window(one))  # fmt: skip
    assert hear(windows, alerts, model, [True] * (2 * BATCH)) == ["resolved"]


@pytest.mark.parametrize("at", [3, 99, 100, 103])
def test_a_restart_counts_on(place, at):  # noqa: F811
    """The batch so far is in the state."""
    artifacts, model = place
    flags = [True] * 99 + [False] * 20
    whole, alerts = Windows(artifacts, {}), Alerts({})
    expected = hear(whole, alerts, model, flags)
    before, alerts = Windows(artifacts, {}), Alerts({})
    told = hear(before, alerts, model, flags[:at])
    after = Windows(artifacts, orjson.loads(orjson.dumps(before.to_json())))
    told += hear(after, alerts, model, flags[at:], at)
    assert told == expected == ["opened"]
    assert after.to_json() == whole.to_json()


@pytest.mark.parametrize(
    ("change", "contradicts"),
    [
        (lambda inputs: None, False),
        (lambda inputs: inputs.pop(), True),
        (lambda inputs: inputs[0].update(name="renamed"), True),
        (lambda inputs: inputs[0].update(
            parameters={"shared_memory_region": "r", "shared_memory_byte_size": 4}), False),
    ],
)  # fmt: skip
def test_what_contradicts_the_card(place, change, contradicts):  # noqa: F811
    """A tensor that is not there or has another name does; one that lies elsewhere does not."""
    _, model = place
    card = model.versions["v1"].card
    inputs = [
        {"name": feature.carrier, "shape": [1, 1],
         "datatype": "BYTES" if feature.type == "category" else "FP32",
         "data": [feature.categories[0] if feature.type == "category" else 0.5]}
        for feature in card.features
    ]  # fmt: skip
    change(inputs)
    sent = Part.of(orjson.dumps({"inputs": inputs}), 1 << 20)
    parts = encode_parts({"groups": [], "request_headers": []}, sent, EMPTY)
    bodies = SimpleNamespace(read_sealed=lambda *_: ((), parts))
    record = {"id": "x", "model": "mortgage", "version": "v1", "arm": "stable", "protocol": "v2",
              "operation": "infer", "status": 200}  # fmt: skip
    leaf = {
        "kind": "exchange",
        "record": record,
        "body": {},
        "decisions": [{"score": 0.5, "outcome": "deny"}],
    }
    found = read_inference(leaf, SimpleNamespace(models={"mortgage": model}), bodies, Readings())
    assert found.contradicts_card == contradicts
    assert (found.why is None) == (not contradicts and "parameters" not in inputs[0])
