#!/usr/bin/env python3
"""What a stranger can do with a ledger and plain Python: compute the evidence of a guard on flips
or disagreement again, from the evidence leaves alone, and compare it with what moves were made on.

    python3 examples/recompute_flips.py state/ledger/root mortgage-v3 flips

The e-value is the mean capital of bettors who stake the fractions below against "at most `max` of
the people would be decided otherwise", block after block (docs/verdicts.md).
"""

import json
import math
import sys
from pathlib import Path

FRACTIONS = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 0.75, 0.95)
BY_NAME = {"flips": {"max": "1%"}, "disagreement": {"metric": "disagree", "max": "2%"}}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def entries(root):
    """The root log's entries in order: full bundles, then the growing one (c2sp.org/tlog-tiles)."""
    full = {}
    for path in (root / "tile" / "entries").rglob("*"):
        if path.is_file() and ".p" not in str(path):
            digits = str(path.relative_to(root / "tile" / "entries")).replace("x", "").split("/")
            full[int("".join(digits))] = path
    tails = {int(path.name): path for path in (root / "tail").iterdir()}
    for number in sorted({*full, *tails}):
        data, at = full.get(number, tails.get(number)).read_bytes(), 0
        while at + 2 <= len(data):
            length = int.from_bytes(data[at : at + 2], "big")
            if at + 2 + length > len(data):
                break
            yield json.loads(data[at + 2 : at + 2 + length])
            at += 2 + length


def span(text):
    """Nanoseconds of `60s`, `10m`."""
    return float(text[:-1]) * SECONDS[text[-1]] * 1e9


class Evidence:
    """Of one attempt: the bettors' capital, and the highest evidence so far, as logarithms."""

    def __init__(self, file, guard):
        named = [one if isinstance(one, dict) else {"name": one} for one in file["guards"]]
        told = BY_NAME.get(guard, {}) | next(one for one in named if one["name"] == guard)
        self.largest = float(told["max"].rstrip("%")) / 100
        self.warmup = span(file.get("evidence", {}).get("warmup", "60s"))
        self.what = "disagreements" if told.get("metric") == "disagree" else "flips"
        self.capital, self.top, self.since = [1.0] * len(FRACTIONS), 0.0, None

    def take(self, block):
        pairs = block.get("pairs", {})
        if self.since is None and pairs.get("eligible"):
            self.since = block["began"]
        if (
            self.since is None
            or block["began"] < self.since + self.warmup
            or not pairs.get("units")
        ):
            return
        edge = (pairs.get(self.what, 0) / pairs["units"] - self.largest) / self.largest
        self.capital = [one * (1 + part * edge) for one, part in zip(self.capital, FRACTIONS)]
        self.top = max(self.top, math.log(sum(self.capital) / len(FRACTIONS)))


def main(root, name, guard):
    evidence, compared, wrong = None, 0, 0
    for leaf in entries(Path(root)):
        record = leaf["record"]
        if leaf["kind"] == "evidence" and record["block"]["rollout"] == name:
            evidence.take(record["block"])
        elif leaf["kind"] == "rollout" and record["rollout"] == name:
            if record["event"] == "created":
                evidence = Evidence(record["file"], guard)
            for verdict in record.get("verdicts", ()):
                if verdict["guard"] == guard:
                    compared += 1
                    wrong += abs(evidence.top - verdict["log_worse"]) > 1e-6
                    print(f"{record['move']}: evidence {math.exp(evidence.top):.3f}, the leaf says "
                          f"{math.exp(verdict['log_worse']):.3f}")  # fmt: skip
    print(f"{compared} values compared, {wrong} differ")
    return 1 if wrong or not compared else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
