"""One guard on a shadow's pairs: shares that are bounded, bet upon block by block. Pure.

A block's share is one value, whatever hangs together in it. Where the share that is tolerated is
small the stake may be high, and little is lost by that (docs/verdicts.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gateway.rollout.eprocess import STEADY, Bounded, Peak


@dataclass(frozen=True, slots=True)
class Wager:
    """Whether the mean of x is above `mean`, x in [low, high]; and whether it is below.

    `units` and `total` are for the estimate: `total / units`.
    """

    above: Bounded = Bounded()
    below: Bounded = Bounded()
    worse: Peak = Peak()
    safe: Peak = Peak()
    units: int = 0
    total: float = 0.0
    looked: int = 0
    """Blocks that were bet upon."""
    steady: Bounded | None = None
    """Bets by blocks against bursts, where `below` is of single pairs."""

    def after(
        self, x: float, *, mean: float, low: float, high: float, units: int, total: float
    ) -> Wager:
        above = self.above.after(x, mean, low)
        below = self.below.after(-x, -mean, -high)
        return Wager(
            above, below, self.worse.at(above.log_e()), self.safe.at(below.log_e()),
            self.units + units, self.total + total, self.looked + 1,
        )  # fmt: skip

    def after_each(
        self, seen: Mapping[float, int], *, mean: float, low: float, high: float
    ) -> Wager:
        """Bets on single values of one block, in whatever order: `seen` says how often each x came.
        Right if what one of them is says nothing of the next."""
        above, below = self.above, self.below
        for x, times in seen.items():
            above = above.after(x, mean, low, times)
            below = below.after(-x, -mean, -high, times)
        return Wager(
            above, below, self.worse.at(above.log_e()), self.safe.at(below.log_e()),
            self.units + sum(seen.values()),
            self.total + sum(x * times for x, times in seen.items()), self.looked + 1,
        )  # fmt: skip

    def after_pairs(self, events: int, units: int, *, mean: float, bursts: float) -> Wager:
        """One bet that the block's share is above `mean`; one for each pair that it is below; and
        one that blocks are not above `bursts`."""
        assert self.steady is not None
        share = events / units
        above = self.above.after(share, mean, 0.0)
        below = self.below.after(-1.0, -mean, -1.0, events).after(0.0, -mean, -1.0, units - events)
        steady = self.steady.after(-share, -bursts, -1.0)
        return Wager(
            above, below, self.worse.at(above.log_e()),
            self.safe.at(min(below.log_e(), steady.log_e())), self.units + units,
            self.total + events, self.looked + 1, steady,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def read(told: Mapping[str, Any]) -> Wager:
        steady = told.get("steady")
        return Wager(
            Bounded(tuple(told["above"]["logs"])), Bounded(tuple(told["below"]["logs"])),
            Peak(**told["worse"]), Peak(**told["safe"]), told["units"], told["total"],
            told["looked"], steady and Bounded(tuple(steady["logs"]), STEADY),
        )  # fmt: skip
