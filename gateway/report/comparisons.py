"""What `headworks shadow report` prints, made from the API's document."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

COLOURS = {"compared": "green", "inconclusive": "yellow", "nothing": "yellow"}
SEGMENTS_AT_MOST = 20


def shadows(console: Console, document: dict[str, Any]) -> None:
    for one in document["shadows"]:
        against = ", ".join(f"{name} ({n:,})" for name, n in one["against"].items()) or "nothing"
        colour = COLOURS[one["state"]]
        console.print(f"[bold]{one['version']}[/] against {against}: "
                      f"[{colour}]{one['state']}[/]", highlight=False)  # fmt: skip
        for sentence in one["words"]:
            console.print(f"  {sentence}", highlight=False, markup=False)
        if one["coverage"]["compared"]:
            _figures(console, one)
            _segments(console, one["segments"])
        _examples(console, one["examples"])
    if not document["shadows"]:
        console.print("No shadow has had a copy yet.")


def _figures(console: Console, one: dict[str, Any]) -> None:
    table = Table("disagreement", "of", "disagree", "share", "95 % interval", box=None)
    noise = f"noise ({one['noise_is'].replace('_', ' ')})"
    for title, share in (("exchanges", one["raw"]), ("decisions", one["decisions"]),
                         (noise, one["noise"])):  # fmt: skip
        table.add_row(title, *_share(share))
    if (found := one["corrected"]) is not None:
        low, high = found["interval"]
        table.add_row("corrected", f"{found['n']:,}", f"{found['n10']} less {found['n01']}",
                      f"{found['difference']:+.2%}", f"{low:+.2%} to {high:+.2%}")  # fmt: skip
    console.print(table)
    for title, counts in (("reasons", one["reasons"]), ("flips", one["directions"]),
                          ("noted", one["notes"]),
                          ("not compared", one["coverage"]["missing"])):  # fmt: skip
        if counts:
            told = ", ".join(f"{word} {n:,}" for word, n in counts.items())
            console.print(f"{title}: {told}", highlight=False, markup=False)
    if (times := one["latency"]) is not None:
        told = "; ".join(f"{name} median {at['p50']:.1f}, p95 {at['p95']:.1f} ms"
                         for name, at in times.items())  # fmt: skip
        console.print(f"latency: {told}", highlight=False)
    if (found := one["explained"]) is not None:
        console.print(
            f"explanations: {found['top']:.0%} of the four strongest features in common, "
            f"{found['signs']:.0%} of those with the same sign, rank correlation "
            f"{found['order']:.2f} ({found['n']:,} decisions)", highlight=False,
        )  # fmt: skip


def _share(share: dict[str, Any]) -> tuple[str, str, str, str]:
    if share["share"] is None:
        return "0", "", "", ""
    low, high = share["interval"]
    return (f"{share['n']:,}", f"{share['count']:,}", f"{share['share']:.2%}",
            f"{low:.2%} to {high:.2%}")  # fmt: skip


def _segments(console: Console, segments: list[dict[str, Any]]) -> None:
    """Those that stand out, then the highest shares."""
    order = sorted(segments, key=lambda one: (not one["stands_out"],
                                              -(one["disagree"]["share"] or 0.0)))  # fmt: skip
    table = Table("by", "value", "of", "disagree", "share", "95 % interval", "", box=None)
    for one in order[:SEGMENTS_AT_MOST]:
        mark = "more than elsewhere" if one["stands_out"] else ""
        table.add_row(one["key"], one["value"], *_share(one["disagree"]), mark)
    if segments:
        console.print(table)


def _examples(console: Console, examples: list[dict[str, Any]]) -> None:
    """Both ids whole, however wide the terminal is: they are for copying."""
    for one in examples:
        word = one["reason"] + (f" {one['direction']}" if one["direction"] else "")
        console.print(f"{word} {one['severity']:.3f}  given {one['primary']}  shadow {one['id']}",
                      highlight=False, soft_wrap=True)  # fmt: skip
