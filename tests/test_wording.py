"""Settings back in words: what is read from them is what was written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.declaration import duration_text, share_ppm, share_text, size_text
from gateway.modelsettings import ModelSettings, RuleSettings
from gateway.revision.difference import difference
from gateway.table import rule_document
from gateway.wording import rule_words, worded

RULES = [
    "{name: everyone, split: {v1: 100%}}",
    "{name: a, split: {v1: 94.9999%, v2: 5.0001%}, shadow: {v3: 10%}, salt: pepper}",
    "{name: b, when: {header: {x-a: 'é'}, method: [GET, PUT], path: /a*, caller: [x, y], context:"
    " {k: v}, body: {/a/b: 1, /c: 1.5, /d: true, '/e~1f': x}}, split: {v1: null, v2: 1ppm}}",
    "{name: c, split: {v1: 95%, v2: 5%}, holdout: 5%, sticky: {max_age: 90s, by: header}, limits:"
    " {request: 1000B, keep: 2KiB}, timeouts: {idle: 1500ms, request: 2m}, priority: batch}",
    "{name: d, split: {v2: 100%}, shadow: {v3: {share: 2%, when: {header: {x-r: eu}}}, v1: 1%}}",
]


def written(text: str) -> dict[str, Any]:
    """A rule's text as a document has it."""
    return rule_document(RuleSettings.model_validate(yaml.safe_load(text)).model_dump(mode="json"))


@pytest.mark.parametrize("text", RULES)
def test_a_rule_is_read_back_from_its_words(text: str) -> None:
    """From a file to a document to a file: the same document, defaults left out."""
    document = rule_document(
        RuleSettings.model_validate(yaml.safe_load(text)).model_dump(mode="json")
    )
    words = yaml.safe_load(yaml.safe_dump(rule_words(document), sort_keys=False))
    again = rule_document(RuleSettings.model_validate(words).model_dump(mode="json"))
    assert again == document
    assert "priority" not in words or words["priority"] == "batch"


def test_a_model_is_read_back_from_its_words() -> None:
    """Every kind of value: sizes, times, shares, lists, sections that are absent."""
    text = """
versions: {v1: {endpoints: ['http://a', 'http://b'], auth: {from: 'env:TOKEN'}, tls: {ca: a.pem}}}
rules: [{name: all, split: {v1: 100%}}]
limits: {request: 3MiB, in_flight: 7}
timeouts: {connect: 250ms}
retries: {attempts: 2, 'on': ['503'], budget: 12.5%}
health: {interval: 2s}
monitor: {window: {count: 100, at_most: 90m}, groups: [race]}
expose: [id, arm]
retention: 90d
"""
    dumped = ModelSettings.model_validate(yaml.safe_load(text)).model_dump(mode="json")
    words = worded(ModelSettings, dumped)
    assert ModelSettings.model_validate(words).model_dump(mode="json") == dumped
    assert words["limits"] == {"request": "3MiB", "in_flight": 7}
    assert words["versions"]["v1"]["auth"] == {"from": "env:TOKEN"}
    assert "durability" not in words


@given(st.integers(0, 10**12), st.integers(0, 10**15), st.integers(0, 1_000_000))
def test_units_are_exact(microseconds: int, count: int, ppm: int) -> None:
    """A time to the microsecond, a size to the byte, a share to the ppm."""
    from pydantic import TypeAdapter

    from gateway.declaration import Duration, Size

    seconds = microseconds / 1e6
    said = TypeAdapter(Duration).validate_python(duration_text(seconds))
    assert said == pytest.approx(seconds, rel=1e-12, abs=1e-9)
    assert TypeAdapter(Size).validate_python(size_text(count)) == count
    assert share_ppm(share_text(ppm)) == ppm


def document(*rules: str, **more: Any) -> dict[str, Any]:
    told = [written(rule) for rule in rules]
    return {
        "callers": [{"name": "x", "key_sha256": more.get("key", "a")}], "people": [],
        "telemetry": {}, "alerts": {},
        "models": {"m": {"versions": {}, "rules": told, "durability": more.get("kind", "durable")}},
    }  # fmt: skip


def test_a_difference_is_told_in_a_files_words() -> None:
    """Each changed value by its key; rules by their names, their order apart, digests untold."""
    one = document(RULES[0], RULES[1])
    other = document(RULES[1].replace("10%", "20%"), RULES[0], kind="bounded", key="b")
    assert difference(one, other) == [
        {"key": "models.m.durability", "before": "durable", "after": "bounded"},
        {"key": "models.m.order", "before": ["everyone", "a"], "after": ["a", "everyone"]},
        {"key": "models.m.rules.a.shadow.v3", "before": "10%", "after": "20%"},
        {"key": "callers.x.key_sha256", "before": "a digest", "after": "another"},
    ]
    assert difference(one, one) == []
