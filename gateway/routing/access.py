"""What a caller may do beyond calling: pure."""

from __future__ import annotations

from gateway.errors import Refusal
from gateway.exchange import Caller
from gateway.protocol.dialect import Target
from gateway.table import Model


def forced_version(
    model: Model,
    asked: str | None,
    target: Target,
    headers: dict[bytes, bytes],
    caller: Caller,
) -> str | None:
    """The version `asked` for by path or message, or by header; refused where the caller may not.

    Loading and unloading a model changes what answers, and so needs the same permission.
    """
    if target.operation == "control" and "force" not in caller.may:
        raise Refusal("force_not_allowed", f"caller {caller.name!r} may not load or unload models")
    if asked is None and (value := headers.get(b"x-headworks-version")):
        asked = value.decode("latin-1")
    if asked is None:
        return None
    if asked not in model.versions:
        raise Refusal("unknown_version", f"model {model.name!r} has no version {asked!r}")
    if "force" not in caller.may:
        words = f"caller {caller.name!r} may not choose version {asked!r}"
        raise Refusal("force_not_allowed", words)
    return asked
