"""Whether a version can answer at all, by what the workers count each second."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.telemetry.metrics import expose

SERIES = re.compile(r"^headworks_endpoints\{([^}]*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def unready(folder: Path, model: str, version: str) -> str | None:
    """Why it cannot, in words; None: it can, or it has no endpoints, or nobody has counted yet.

    `folder`: where the workers' metrics lie.
    """
    if not folder.is_dir():
        return None
    counts: dict[str, float] = {}
    for labels, value in SERIES.findall(expose(folder).decode()):
        told = dict(LABEL.findall(labels))
        if (told.get("model"), told.get("version")) == (model, version):
            counts[told["state"]] = counts.get(told["state"], 0.0) + float(value)
    if not counts or counts.get("available", 0.0) > 0:
        return None
    states = ", ".join(f"{count:.0f} {state}" for state, count in sorted(counts.items()) if count)
    return f"it is not ready: no endpoint is available ({states or 'none'})"
