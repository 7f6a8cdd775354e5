"""What stands in the way of goals that were missed, in figures of the same run. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from load.goals import ADDED_MS, TIMES
from load.results import Results
from load.tables import (
    ALONE,
    AT,
    Samples,
    commit_ms,
    cpu_all,
    number,
    per_commit,
    per_second,
    ranged,
)

COMMITS_WAITED = 1.5
"""Half of the commit under way when a record is made, on average, and its own."""


def rates(results: Results, samples: Samples) -> Iterator[str]:
    """Times a peer's requests a second: what they would take of the machine, all roles together."""
    for (peer, scenario), times in TIMES.items():
        theirs = samples.middle(peer, scenario, AT, per_second)
        ours = samples.middle("headworks", scenario, AT, per_second)
        each = samples.middle("headworks", scenario, AT, cpu_all)
        if theirs is None or ours is None or each is None:
            continue
        wanted = times * theirs.median
        if ours.median < wanted:
            title = results.titles.get(peer, peer)
            cores = wanted * each.median / 1e6
            yield (f"{times} × {title} would be {number(wanted)} requests/s. With all roles at "
                   f"work one costs {number(each.median)} µs, so they would take {cores:.1f} of "
                   f"the machine's {results.machine['cores']} cores, on which the load and the "
                   "origin run too.")  # fmt: skip


def waits(samples: Samples) -> Iterator[str]:
    """Of the added latency: what is the disk's, and what the other roles'."""
    for name, words in ((ALONE, "With governor and analyst at rest"), ("headworks", "With both")):
        lasts = samples.at_half(name, commit_ms)
        shared, added = samples.at_half(name, per_commit), samples.added(name, "p50")
        if lasts is not None and shared is not None and added is not None:
            yield (f"{words}, a commit lasts {number(lasts.median)} ms at half of saturation and "
                   f"holds {number(shared.median)} records. An answer waits for half of the one "
                   "under way and for its own, so "
                   f"{number(COMMITS_WAITED * lasts.median)} of the {number(added.median)} ms that "
                   "are added in the median are the commit's.")  # fmt: skip


def tails(samples: Samples) -> Iterator[str]:
    """Where a plain proxy misses the goal too, at half of what it carries itself."""
    theirs, ours = samples.added("envoy", "p99"), samples.added("headworks", "p99")
    if (
        theirs is not None
        and ours is not None
        and min(theirs.median, ours.median) > ADDED_MS["p99"]
    ):
        yield (f"Of the added p99: Envoy, one thread that keeps nothing, adds {ranged(theirs)} ms "
               "here at half of what it carries: load, origin and server share the "
               "cores.")  # fmt: skip


def obstacles(results: Results, samples: Samples) -> str:
    """ "" where nothing is to be said."""
    lines = [f"* {words}" for words in (*rates(results, samples), *waits(samples), *tails(samples))]
    return "## What stands in the way\n\n" + "\n".join(lines) if lines else ""
