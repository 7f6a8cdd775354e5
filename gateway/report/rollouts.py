"""What `headworks rollout` prints for people: bars and sentences, no statistics needed."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.markup import escape

PHASES = {"promoted": "green", "running": "green", "shadowing": "green", "baking": "green",
          "held": "yellow", "draft": "yellow", "approved": "yellow", "rolled_back": "bold red",
          "aborted": "bold red"}  # fmt: skip
WORDS = {"safe": "[green]safe[/]", "worse": "[bold red]worse[/]", "undecided": "undecided"}
CELLS = 16


def phase(name: str) -> str:
    return f"[{PHASES[name]}]{name.replace('_', ' ')}[/]"


def rollouts(console: Console, document: dict[str, Any]) -> None:
    if not document["rollouts"]:
        console.print("no rollouts")
        return
    for one in document["rollouts"]:
        console.print(
            f"[bold]{one['rollout']}[/]  {phase(one['phase'])}, step {one['step']} of "
            f"{one['steps']}: {one['exposure']}  {one['model']}/{one['rule']} {one['from']} → "
            f"{one['to']}", highlight=False,
        )  # fmt: skip
        console.print(f"  {escape(one['trouble'] or one['why'])}", highlight=False)


def bar(evidence: float, need: float) -> str:
    """How far evidence has come: by its logarithm, since evidence multiplies."""
    share = math.log(max(evidence, 1.0)) / math.log(need) if need > 1 else 1.0
    filled = min(CELLS, int(CELLS * max(0.0, share)))
    return "█" * filled + "░" * (CELLS - filled)


def amount(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def rollout(console: Console, document: dict[str, Any]) -> None:
    console.print(
        f"[bold]{document['rollout']}[/] (attempt {document['attempt']}): {document['from']} → "
        f"{document['to']} on {document['model']}/{document['rule']}"
    )
    minutes, seconds = divmod(document["lasted_s"], 60)
    lasted = f", since {document['since']} ({minutes} min {seconds} s)" if document["since"] else ""
    console.print(f"  {phase(document['phase'])}: {document['exposure']}{lasted}", highlight=False)
    console.print(f"  {escape(document['why'])}", highlight=False)
    for key, words in (("trouble", "cannot be judged"), ("would", "would have done")):
        if document[key]:
            console.print(f"  [yellow]{words}:[/] {escape(document[key])}", highlight=False)
    _plan(console, document["plan"])
    _guards(console, document)
    for name, words in document["unhealthy"].items():
        console.print(f"  [yellow]not sound:[/] {name}: {words}", highlight=False)


def _plan(console: Console, plan: list[dict[str, Any]]) -> None:
    marks = {"done": "[green]✓[/]", "now": "[bold]▶[/]", "ahead": "·"}
    for step in plan:
        needs = f", until {', '.join(step['requires'])} shown safe" if step["requires"] else ""
        if step["how"]:
            needs = f": {escape(step['how'])}"
        lasts = f" for {step['min_s']} s" if step["min_s"] else ""
        console.print(f"  {marks[step['state']]} {step['step']}. {step['what']}{lasts}{needs}",
                      highlight=False)  # fmt: skip


def _guards(console: Console, document: dict[str, Any]) -> None:
    ahead = {one["guard"]: one["words"] for one in document["outlook"]}
    for one in document["guards"]:
        console.print(f"  [bold]{one['guard']}[/]: {WORDS[one['verdict']]}", highlight=False)
        for what, words in (("safe", "no worse"), ("worse", "worse   ")):
            evidence, need = one[f"e_{what}"], one[f"need_{what}"]
            console.print(f"    {words} {bar(evidence, need)} {amount(evidence)} of "
                          f"{amount(need)}", highlight=False)  # fmt: skip
        console.print(f"    {escape(one['words'])}", highlight=False)
        if foreseen := ahead.get(one["guard"]):
            console.print(f"    {escape(foreseen)}", highlight=False)


def history(console: Console, document: dict[str, Any]) -> None:
    for event in document["events"]:
        what = event.get("move") or event["event"]
        words = event.get("why") or (f"asked for {event['what']}" if "what" in event else "")
        to = f" → {event['phase'].replace('_', ' ')}" if "phase" in event else ""
        console.print(f"{event['at']}  #{event['attempt']} {what.replace('_', ' ')}{to}  by "
                      f"{escape(event['by'])}  {escape(words)}", highlight=False)  # fmt: skip
        for one in event.get("verdicts", ()):
            if one["verdict"] == "worse":
                console.print(f"    {one['guard']}: {escape(one['words'])}", highlight=False)


def recomputed(console: Console, document: dict[str, Any]) -> None:
    console.print(
        f"[bold]{document['rollout']}[/] attempt {document['attempt']}, "
        f"{document['phase'].replace('_', ' ')}: {document['blocks']} blocks, "
        f"{document['moves']} moves", highlight=False,
    )  # fmt: skip
    console.print(f"  {document['verdicts']} verdicts and {document['decisions']} decisions of the "
                  "controller computed again from the evidence", highlight=False)  # fmt: skip
    if document["counts"]:
        since = document["counted_from"]
        console.print(f"  {document['counts']} of {document['blocks']} blocks counted again from "
                      f"their records, from {since} on", highlight=False)  # fmt: skip
    else:
        console.print("  no block was counted again: its records are not kept, or were not opened")
    if document["unreadable"]:
        console.print("  records are erased or retired: what follows them is not counted again")
    for words in document["problems"]:
        console.print(f"  [bold red]{words}[/]", highlight=False)
    if not document["problems"]:
        console.print("  [green]all of it agrees[/]")


def simulated(console: Console, document: dict[str, Any]) -> None:
    console.print(
        f"{document['blocks']} recorded blocks, judged by the other file", highlight=False
    )
    for one in document["guards"]:
        since = one["since"]
        when = f" since {since['at']}, after {since['after_blocks']} blocks" if since else ""
        console.print(f"  {one['guard']}: {WORDS[one['verdict']]}{when}", highlight=False)
        console.print(f"    {escape(one['words'])}", highlight=False)
    for act in document["acts"]:
        console.print(f"  {act['at']}: would {act['do']}: {escape(act['why'])}", highlight=False)
