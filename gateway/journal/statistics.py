"""What a journal counts of itself since it was opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Statistics:
    records: int = 0
    bytes: int = 0
    commits: int = 0
    commit_ns: int = 0  # time spent between write and durable, summed
    late: int = 0  # commits longer than `bounded` promises
    stalls: int = 0
    refused: int = 0
    withheld: int = 0
    receipts: int = 0
    signatures: int = 0
    at_risk: int = 0  # most answers released before their flush, since somebody set it to 0
