"""What decided a generated answer: there is nothing to attribute, but all of this is on record."""

from __future__ import annotations

from typing import Any

from gateway.table import Model

POLICIES = ("on_disconnect", "durability", "fallback")


def trace_of(leaf: dict[str, Any], model: Model | None) -> dict[str, Any] | None:
    """Route, policies, parameters, how it ended; None: it is no generation."""
    record = leaf["record"]
    completion = record.get("completion") or leaf.get("completion")
    if record.get("protocol") != "openai" or completion is None:
        return None
    told = leaf.get("trace") or {}
    return {
        "route": {name: record.get(name) for name in ("rule", "version", "arm", "unit",
                                                      "assigned", "fallback", "attempts")},
        "policies": _policies(model, record.get("rule")),
        "asked": told.get("asked"),
        "completion": completion,
        "logprobs": told.get("logprobs"),
    }  # fmt: skip


def _policies(model: Model | None, rule: str | None) -> dict[str, Any]:
    """What the revision in force then let the gateway do with it."""
    if model is None:
        return {}
    found = {name: getattr(model, name) for name in POLICIES}
    found["priority"] = next((one.priority for one in model.rules if one.name == rule), None)
    return found | {"retries": model.retries is not None}


def words_of(trace: dict[str, Any]) -> list[str]:
    """For a reader who knows what a model is, in sentences."""
    told = []
    if asked := trace["asked"]:
        listed = ", ".join(f"{name} {value}" for name, value in asked.items())
        told.append(f"It was asked with {listed}.")
    ended = trace["completion"]
    finish = f"it ended with {ended['finish']!r}" if ended["finish"] else "it did not say its end"
    if ended["error"]:
        finish = f"it failed: {ended['error']}"
    tokens = ended.get("completion_tokens")
    used = f"{tokens} tokens, {ended['usage']}" if tokens is not None else f"usage {ended['usage']}"
    told.append(f"The answer was generated: {finish}; {used}.")
    if ended["tool_calls"]:
        told.append("It called tools.")
    if (sure := trace["logprobs"]) is not None:
        told.append(
            f"Log-probabilities of {sure['tokens']} tokens: mean {sure['mean']:.3f}, least "
            f"{sure['least']:.3f}."
        )
    return told
