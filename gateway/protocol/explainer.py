"""What an upstream's explainer answered (KServe's `:explain`, MLServer's `/explain`), less what it
shows of other people. Pure.

Such an answer holds rows of training data (Alibi's `data.raw.examples`, counterfactual instances,
covered samples): they are nobody's to keep beside this person's request. So the answer's bytes are
not kept, only their length and digest; of its content what is listed here is, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

KEPT = frozenset(("anchor", "precision", "coverage", "shap_values", "expected_value", "importances",
                  "attributions", "feature_names", "base_values", "link", "task"))  # fmt: skip
"""Names in Alibi's `data`, and in what others answer, that are about the request alone."""
BYTES_AT_MOST = 16 * 1024
DEPTH_AT_MOST = 4
_WORD = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")


def told(body: bytes) -> dict[str, Any]:
    """`explanations`, each `{name, version, data}`, and how many names were `redacted`."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"why": "unreadable"}
    redacted = 0
    explanations = []
    for found in _explanations(document):
        data = found.get("data", found)
        data = data if isinstance(data, dict) else {}
        kept = {name: data[name] for name in data if name in KEPT and _plain(data[name])}
        redacted += len(data) - len(kept)
        explanations.append(_named(found.get("meta")) | {"data": kept})
    said = {"explanations": explanations, "redacted": redacted}
    return said if len(orjson.dumps(said)) <= BYTES_AT_MOST else {"why": "too_long"}


def _explanations(document: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Alibi's objects: bare, under `explanations`, or as text in a v2 output `explanation`."""
    if isinstance(document, str):
        try:
            document = orjson.loads(document)
        except orjson.JSONDecodeError:
            return
    if depth > DEPTH_AT_MOST:
        return
    if isinstance(document, list):
        for item in document:
            yield from _explanations(item, depth + 1)
    elif isinstance(document, dict):
        inner = document.get("explanations", document.get("outputs"))
        if inner is not None:
            yield from _explanations(inner, depth + 1)
        elif document.get("name") == "explanation" and "data" in document:
            yield from _explanations(document["data"], depth + 1)
        else:
            yield document


def _named(meta: Any) -> dict[str, Any]:
    meta = meta if isinstance(meta, dict) else {}
    return {
        name: value
        for name in ("name", "version")
        if isinstance(value := meta.get(name), str) and _WORD.match(value)
    }


def _plain(value: Any, depth: int = 0) -> bool:
    """Numbers and short texts, in lists: no object hides in a name that is kept."""
    if isinstance(value, list):
        return depth < DEPTH_AT_MOST and all(_plain(item, depth + 1) for item in value)
    return value is None or isinstance(value, int | float) or (
        isinstance(value, str) and len(value) <= 200
    )  # fmt: skip
