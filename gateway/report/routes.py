"""Tables, histories and traces, printed for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.declaration import duration_text, share_text, size_text
from gateway.wording import plain_text


def history(console: Console, told: Any) -> None:
    table = Table(box=None)
    for name in ("number", "revision", "when", "by", "from"):
        table.add_column(name, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for one in told["revisions"]:
        table.add_row(str(one["number"]), one["revision"][:12], one["created"][:19] + "Z",
                      escape(one["author"]), one["origin"], escape(one["reason"]))  # fmt: skip
    console.print(table)


def revision(console: Console, told: Any) -> None:
    who = f"{told['author']} ({told['origin']}): {told['reason']}"
    console.print(f"revision {told['revision'][:12]}, number {told['number']}, of "
                  f"{told['created']} by {escape(who)}")  # fmt: skip
    for name, model in told["models"].items():
        console.print(f"\n{name}")
        for rule in model["rules"]:
            rest = {key: value for key, value in rule.items() if key != "name"}
            console.print(f"  {rule['name']}: {escape(plain_text(rest))}")
    if told.get("against"):
        console.print(f"\nagainst {told['against'][:12]}")
        changes(console, told)


def changes(console: Console, told: Any) -> None:
    if not told["difference"]:
        console.print("no difference")
    for change in told["difference"]:
        before, after = (escape(plain_text(change[key])) for key in ("before", "after"))
        console.print(f"  {change['key']}: {before} -> {after}")


def published(console: Console, told: Any) -> None:
    words = "is in force" if told["changed"] else "as before"
    console.print(f"revision {told['revision'][:12]} {words}")
    for name in told["ended"]:
        console.print(f"rollout {name} has ended: the revision did not know it")
    for words in told["warnings"]:
        console.print(f"warning: {escape(words)}")


def refused(console: Console, told: Any) -> None:
    """Why an edit is not in force: problems with their lines, or both sides of a conflict."""
    console.print(f"nothing was changed: {escape(told['error'])}")
    for one in told.get("problems", ()):
        console.print(f"  line {one['line']}: {escape(one['key'])}: {escape(one['allowed'])}")
    for side in ("ours", "theirs"):
        if side in told:
            console.print(f"  {side}: {escape(plain_text(told[side]))}")
    if told.get("difference") is not None:
        changes(console, told)


def trace(console: Console, told: Any) -> None:
    for rule in told.get("rules", ()):
        why = ""
        if rule["result"] == "fails":
            found = "nothing is there" if rule["found"] is None else f"it is {rule['found']}"
            why = f": {rule['condition']}; {found}"
        console.print(f"rule {rule['name']} {rule['result']}{escape(why)}")
    if (refused := told.get("refused")) is not None:
        console.print(f"refused: {refused['status']} {refused['code']}: "
                      f"{escape(refused['message'])}")  # fmt: skip
        return
    if told["model"] is None:
        console.print("the gateway answers this itself")
        return
    unit, limits, times = told["unit"], told["limits"], told["timeouts"]
    if unit["kind"] != "forced":
        value = f" {unit['value']}" if unit["value"] is not None else ""
        console.print(f"unit {escape(unit['kind'] + value)}, salt {escape(unit['salt'])}: "
                      f"bucket {told['bucket_ppm']} of 1000000")  # fmt: skip
    for one in told["intervals"]:
        console.print(f"  {one['low']} to {one['high']}: {one['version']} ({one['arm']})")
    console.print(f"version {told['version']} as {told['arm']}, at {', '.join(told['endpoints'])}")
    if told["sticky"]:
        console.print(f"  a session's pin ({told['sticky']}) may say otherwise")
    console.print("  limits " + ", ".join(
        f"{name} {size_text(limits[name])}" for name in ("request", "hold", "keep")))  # fmt: skip
    console.print(
        "  times " + ", ".join(f"{key} {duration_text(one)}" for key, one in times.items())
    )
    console.print(f"  {told['durability']}, priority {told['priority']}, "
                  f"fallback {told['fallback'] or 'none'}")  # fmt: skip
    if told.get("freeze_on"):
        console.print(f"  frozen while alerts are open of {escape(', '.join(told['freeze_on']))}")
    if told.get("rollback_on"):
        causes = escape(", ".join(told["rollback_on"]))
        console.print(f"  a version with an alert of {causes} loses its share to the stable one")
    for one in told["shadows"]:
        words = "gets a copy" if one["copied"] else f"gets none: {one['why_not']}"
        console.print(f"shadow {one['version']} ({share_text(one['share_ppm'])}) {escape(words)}")


def trial(console: Console, told: Any) -> None:
    console.print(f"{told['change']} of {told['tried']} requests would change version, "
                  f"{told['stay']} stay, {told['unknown']} are unknown")  # fmt: skip
    for name, words in (("refused", "no rule would match"), ("forced", "their caller forced it"),
                        ("session", "their session's pin decided"),
                        ("gone", "the draft has no such model")):  # fmt: skip
        if told[name]:
            console.print(f"  {told[name]}: {words}")
    for why, count in told["unknown_because"].items():
        console.print(f"  unknown, {count}: {escape(why)}")
    for one in told["changes"]:
        to = one["to"]
        where = f"{to['version']} by {to['rule']}" if to["rule"] else "no rule"
        was = f"{one['from']['version']} by {one['from']['rule']}"
        console.print(f"{one['model']}: {one['count']} from {was} to {where}; "
                      f"{', '.join(one['examples'])}")  # fmt: skip


def tests(console: Console, told: Any) -> None:
    for one in told["failed"]:
        console.print(f"failed: {escape(one['name'])}: {escape(one['words'])}")
    console.print(f"{told['tests'] - len(told['failed'])} of {told['tests']} tests hold; "
                  f"{told['coverage']:g}% of rules reached")  # fmt: skip
    if told["unreached"]:
        console.print(f"not reached: {', '.join(told['unreached'])}")
