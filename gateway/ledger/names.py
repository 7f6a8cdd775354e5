"""What logs are called: pure.

The root log is `root`; each model has one log a calendar quarter (UTC): retention drops a closed
quarter whole, and what never ends in time cannot be dropped. A log's origin in the sense of
c2sp.org/tlog-checkpoint is the ledger's name, a slash, and the log's name.
"""

from __future__ import annotations

from datetime import UTC, datetime

ROOT = "root"


def quarter_of(now_ns: int) -> str:
    """`2026q4`."""
    at = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC)
    return f"{at.year}q{(at.month + 2) // 3}"


def day_of(now_ns: int) -> str:
    """`2026-11-23`, UTC."""
    return datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).date().isoformat()


def log_of(model: str | None, now_ns: int) -> str:
    """The log in which a leaf about `model` belongs that is sealed at this time."""
    return ROOT if model is None else f"models/{model}/{quarter_of(now_ns)}"


def over(log: str, now_ns: int) -> bool:
    """Whether the log's quarter has passed."""
    return log != ROOT and log.rpartition("/")[2] != quarter_of(now_ns)


def origin_of(name: str, log: str) -> str:
    return f"{name}/{log}"
