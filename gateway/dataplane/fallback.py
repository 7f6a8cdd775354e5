"""When another version answers in place of the chosen one: pure.

Only where `fallback` names it, and only where the chosen one gave no answer: the caller's own
mistakes stay his. The failure stays the first one's: the record says who should have answered.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.exchange import Choice
from gateway.table import Model

FAILURES = frozenset(
    ("overloaded", "model_failed", "upstream_connect_failed", "upstream_reset",
     "upstream_protocol_error", "upstream_overloaded", "upstream_timeout", "upstream_unavailable",
     "upstream_credentials")
)  # fmt: skip


def stand_in(model: Model, choice: Choice, *, passes: bool) -> Choice | None:
    """Who would answer instead; None: nobody. `passes`: the body is gone with the first attempt."""
    name = model.fallback
    if name is None or passes or name == choice.version or choice.arm == "forced":
        return None
    return replace(choice, version=name, arm="fallback")


def is_failure(code: str | None, status: int) -> bool:
    """Of a version: our code for it, or its own 5xx."""
    return code in FAILURES if code is not None else status >= 500
