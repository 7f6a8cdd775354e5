"""Retention: what is older than its model's retention goes, whole files at a time.

`due` decides, purely: a daily file of bodies once its day's end is older than the retention, a
closed quarter's log likewise. What a legal hold holds stays. The acts are apart, and each may be
cut off by a crash at any point: it is due again at the next look.

With a day's bodies go the keys that nothing else uses: those of exchanges without a subject, and of
subjects of whom nothing is left. They go first: a crash leaves files without keys, which are due
again, never keys and names without files, which nobody would look for.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from gateway.disk import sync_folder
from gateway.ledger.bodies import body_files, body_path, index_path, indexed
from gateway.ledger.holds import Hold
from gateway.ledger.subjects import Subjects

WINDOW = 1 << 24
"""Key numbers looked at together, in bytes of memory."""
DESTROYED_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True)
class Log:
    """A model's log of one quarter (as 2026q4); only a closed one can be dropped."""

    model: str
    quarter: str
    closed: bool

    @property
    def name(self) -> str:
        return f"models/{self.model}/{self.quarter}"


@dataclass(frozen=True, slots=True)
class Due:
    """What may go, what would but is held (name -> ids of holds), and models without a rule."""

    bodies: tuple[str, ...]
    logs: tuple[Log, ...]
    held: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Files, their bytes, and the keys that went with them."""

    files: tuple[str, ...]
    bytes: int
    keys: int


def due(
    logs: Iterable[Log],
    bodies: Iterable[str],
    holds: Collection[Hold],
    now_ns: int,
    retention: Mapping[str, float],
) -> Due:
    """What may go now. `bodies`: files as `mortgage/2026-11-23`; `retention`: seconds by model.

    A model (or "-") that `retention` does not name loses nothing and is told in `unknown`.
    """
    held: dict[str, tuple[str, ...]] = {}
    unknown: set[str] = set()
    free_bodies, free_logs = [], []
    for file in bodies:
        model, _, day = file.partition("/")
        if not _older(day_end(day), model, now_ns, retention, unknown):
            continue
        if reasons := tuple(hold.id for hold in holds if hold.holds_file(file)):
            held[file] = reasons
        else:
            free_bodies.append(file)
    for log in logs:
        if not log.closed:
            continue
        end = quarter_end(log.quarter)
        if not _older(end, log.model, now_ns, retention, unknown):
            continue
        if reasons := tuple(hold.id for hold in holds if _holds_log(hold, log.model, end)):
            held[log.name] = reasons
        else:
            free_logs.append(log)
    return Due(tuple(free_bodies), tuple(free_logs), held, tuple(sorted(unknown)))


def _older(
    end: date, model: str, now_ns: int, retention: Mapping[str, float], unknown: set[str]
) -> bool:
    if model not in retention:
        unknown.add(model)
        return False
    moment = datetime(end.year, end.month, end.day, tzinfo=UTC)
    return moment.timestamp() + retention[model] <= now_ns / 1e9


def _holds_log(hold: Hold, model: str, end: date) -> bool:
    """An exchange's leaf lies in the log of the quarter of its day or, sealed later, behind it."""
    if hold.model == model:
        return True
    return any(
        held == model and day_end(day) <= end
        for held, _, day in (exchange.file.partition("/") for exchange in hold.exchanges)
    )


def day_end(day: str) -> date:
    """The first day after `2026-11-23`. ValueError."""
    return date.fromisoformat(day) + timedelta(days=1)


def quarter_end(quarter: str) -> date:
    """The first day after `2026q4`. ValueError."""
    year, _, number = quarter.partition("q")
    if number not in ("1", "2", "3", "4"):
        raise ValueError(f"{quarter!r} is no quarter")
    return date(int(year) + (number == "4"), int(number) * 3 % 12 + 1, 1)


def drop_bodies(state: Path, subjects: Subjects, files: Collection[str]) -> Dropped:
    """Destroy daily files and the keys that only they used; after a commit of bodies."""
    keys = size = 0
    for numbers in unused(state, files):
        keys += subjects.destroy(numbers)
    for file in files:
        path, index = body_path(state, file), index_path(state, file)
        size += path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
        index.unlink(missing_ok=True)
        if path.parent.exists():
            sync_folder(path.parent)
    return Dropped(tuple(files), size, keys)


def unused(state: Path, files: Collection[str], window: int = WINDOW) -> Iterator[list[int]]:
    """Key numbers that the indexes of `files` name and those of no other file, in bounded lists.

    One window of numbers after the other, so that memory is bounded whatever the files hold.
    """
    others = [file for file in body_files(state) if file not in files]
    for low in _windows(state, files, window):
        marked = np.zeros(window, dtype=np.bool_)
        for file in files:
            _mark(marked, state, file, low, True)
        for file in others:
            _mark(marked, state, file, low, False)
        found = np.flatnonzero(marked) + low
        for start in range(0, len(found), DESTROYED_AT_ONCE):
            yield found[start : start + DESTROYED_AT_ONCE].tolist()


def _windows(state: Path, files: Collection[str], window: int) -> list[int]:
    lows: set[int] = set()
    for file in files:
        for piece in indexed(state, file):
            lows.update((np.unique(piece["number"] // window) * window).tolist())
    return sorted(lows)


def _mark(
    marked: np.ndarray[tuple[int], np.dtype[np.bool_]],
    state: Path, file: str, low: int, value: bool,
) -> None:  # fmt: skip
    for piece in indexed(state, file):
        numbers = piece["number"]
        inside = numbers[(numbers >= low) & (numbers < low + len(marked))]
        marked[inside - low] = value


def drop_log(folder: Path) -> None:
    """Destroy a closed log's folder (`state/ledger/models/mortgage/2026q3`), whole.

    It is renamed first: readers see all of it or nothing; `sweep` completes what a crash left.
    """
    beside = folder.with_name(f".{folder.name}.dropped")
    if folder.exists():
        folder.rename(beside)
        sync_folder(folder.parent)
    if beside.exists():
        shutil.rmtree(beside)
        sync_folder(folder.parent)


def sweep(models: Path) -> None:
    """At a start: complete the drops that a crash cut off, under `state/ledger/models`."""
    for beside in models.glob("*/.*.dropped"):
        shutil.rmtree(beside)
        sync_folder(beside.parent)
