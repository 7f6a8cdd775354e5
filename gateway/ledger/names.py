"""What logs are called: pure.

The root log is `root`; each model has one log a calendar quarter (UTC): retention drops a closed
quarter whole, and what never ends in time cannot be dropped. A log's origin in the sense of
c2sp.org/tlog-checkpoint is the ledger's name, a slash, and the log's name.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache

ROOT = "root"
DAY_NS = 86_400 * 10**9
EPOCH = date(1970, 1, 1).toordinal()
DAYS_KNOWN = 64


def quarter_of(now_ns: int) -> str:
    """`2026q4`."""
    return _named(now_ns // DAY_NS)[0]


def day_of(now_ns: int) -> str:
    """`2026-11-23`, UTC."""
    return _named(now_ns // DAY_NS)[1]


@lru_cache(DAYS_KNOWN)
def _named(day: int) -> tuple[str, str]:
    """Quarter and date of a day since 1970: asked several times for each record of it."""
    at = date.fromordinal(EPOCH + day)
    return f"{at.year}q{(at.month + 2) // 3}", at.isoformat()


def log_of(model: str | None, now_ns: int) -> str:
    """The log in which a leaf about `model` belongs that is sealed at this time."""
    return ROOT if model is None else f"models/{model}/{quarter_of(now_ns)}"


def over(log: str, now_ns: int) -> bool:
    """Whether the log's quarter has passed."""
    return log != ROOT and log.rpartition("/")[2] != quarter_of(now_ns)


def origin_of(name: str, log: str) -> str:
    return f"{name}/{log}"
