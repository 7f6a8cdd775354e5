"""Which endpoint of a version gets the next request: pure.

Least request by the power of two choices: two are drawn, the one with fewer open exchanges wins.
That is nearly as good as the least loaded of all, and never sends a herd to one that has just
become free. With two or fewer it is the least loaded, the draw deciding between equals.
"""

from __future__ import annotations

from collections.abc import Sequence


def least_request(open_exchanges: Sequence[int], draw: int) -> int:
    """The index of the chosen one. `draw`: any number from 0, evenly spread."""
    count = len(open_exchanges)
    assert count, "there is somebody to choose"
    one = draw % count
    if count == 1:
        return one
    other = (one + 1 + draw // count % (count - 1)) % count
    return one if open_exchanges[one] <= open_exchanges[other] else other
