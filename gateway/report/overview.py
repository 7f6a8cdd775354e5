"""What the commands print for people: tables and words made from the API's documents."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.clock import isoformat

COLOURS = {"green": "green", "yellow": "yellow", "red": "bold red", "ok": "green",
           "watch": "yellow", "drift": "bold red", "fault": "bold red",
           "breach": "bold red"}  # fmt: skip

WIDEST = 1000
"""Of a table that is not to be cut."""


def coloured(state: str) -> str:
    return f"[{COLOURS[state]}]{state}[/]" if state in COLOURS else state


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def journals(console: Console, document: dict[str, Any]) -> None:
    table = Table("journal", "segments", "bytes", "records", "next", "writer", "", box=None)
    for told in document["journals"]:
        words = [f"[bold red]{told['damage']['text']}[/]"] if told["damage"] else []
        words += [f"records {gap['first']} to {gap['upto'] - 1} given up by {gap['by']}: "
                  f"{gap['reason']}" for gap in told["gaps"]]  # fmt: skip
        if told["keys_missing"]:
            words.append(f"keys missing: {told['keys_missing']}")
        if told["unsure_bytes"]:
            words.append(f"{told['unsure_bytes']} bytes not yet durable or torn")
        table.add_row(told["journal"], str(len(told["segments"])), f"{told['bytes']:,}",
                      str(told["records"]), str(told["next"]),
                      "running" if told["written"] else "none", "; ".join(words))  # fmt: skip
    console.print(table)


def decisions(console: Console, rows: list[dict[str, Any]]) -> None:
    """As wide as it has to be, however narrow the window: one decision is asked for by its id."""
    table = Table("decision", "at", "version", "arm", "status", "score", "outcome", box=None)
    for row in rows:
        table.add_row(row["id"], row["at"], f"{row['model']}/{row['version']}", row["arm"],
                      str(row["status"]), _score(row["score"]), row["outcome"])  # fmt: skip
    table.width = console.measure(table, options=console.options.update(width=WIDEST)).maximum
    console.print(table, crop=False)


def decision(console: Console, document: dict[str, Any]) -> None:
    console.print(f"[bold]{document['id']}[/]  leaf {document['leaf']}")
    for sentence in document["words"]:
        console.print(f"  {sentence}", highlight=False)
    explanation = document["explanation"] or {}
    if attributions := explanation.get("attributions"):
        features = document["features"] or {}
        table = Table("feature", "value", "attribution", box=None, title=(
            f"Attributions ({explanation['method']}, in the {explanation['space']}, against "
            f"{explanation['background_rows']} background rows)"))  # fmt: skip
        for name, value in sorted(attributions.items(), key=lambda item: -abs(item[1])):
            table.add_row(name, str(features.get(name, "")), f"{value:+.4f}")
        console.print(table)


RESULTS = {
    "equal": "equal, bit for bit", "within": "within 1e-6, with the same outcome",
    "different": "different", "cannot": "cannot be made again",
}  # fmt: skip


def reproduction(console: Console, document: dict[str, Any]) -> None:
    console.print(f"[bold]{document['id']}[/]  leaf {document['leaf']}, "
                  f"{document['model']}/{document['version']}")  # fmt: skip
    for part in ("answer", "explanation"):
        told = document[part]
        why = f": {told['why']}" if "why" in told else ""
        note = f" ({told['note']})" if "note" in told else ""
        console.print(f"  {part}: {RESULTS[told['result']]}{why}{note}", highlight=False)
    for row in document["answer"].get("where", ()):
        console.print(
            f"  row {row['row']}: recorded {row['recorded']!r} ({row['outcome']}), "
            f"now {row['again']!r} ({row['outcome_again']})",
            highlight=False,
        )
    for place in document["explanation"].get("where", ()):
        console.print(f"  explanation differs at {place}", highlight=False, markup=False)


def status(console: Console, document: dict[str, Any]) -> None:
    words = "; ".join(document["words"])
    console.print(f"{coloured(document['state'])}  {words}")
    console.print(f"revision {(document['revision'] or 'none')[:12]}")
    ports = ", ".join(f"{name} {at}" for name, at in document["listen"].items())
    console.print(f"listening: {ports}", highlight=False)
    table = Table("process", "running", "pid", "restarts", box=None)
    for role, state in document["processes"].items():
        running = "yes" if state["running"] else "[bold red]no[/]"
        table.add_row(role, running, str(state["pid"] or ""), str(state["restarts"]))
    console.print(table)
    stores(console, document["disk"])
    if (governor := document["governor"]) is not None:
        for source, lag in governor["journals"].items():
            damage = f"  [bold red]{lag['damage']}[/]" if lag["damage"] else ""
            console.print(f"journal {source}: sealed to {lag['next_sequence']}, "
                          f"{lag['bytes'] / 2**20:.0f} MiB on disk{damage}")  # fmt: skip
        console.print(f"ledger: {governor['leaves']} leaves")
    if (analyst := document["analyst"]) is not None:
        console.print(f"analyst: {analyst['behind']} leaves behind")


def stores(console: Console, told: dict[str, Any]) -> None:
    """What is on the disk, how it grows, and the day it is full."""
    table = Table("store", "MiB", "at most", "MiB a day", "full on", box=None)
    for name, store in told.items():
        at_most = "" if store["at_most"] is None else f"{store['at_most'] / 2**20:,.0f}"
        growth = "not known yet"
        if store["bytes_a_day"] is not None:
            growth = f"{store['bytes_a_day'] / 2**20:,.1f} (seen {store['measured_s'] // 60} min)"
        table.add_row(name, f"{store['bytes'] / 2**20:,.1f}", at_most, growth,
                      store["full_on"] or "")  # fmt: skip
    console.print(table)


def monitor(console: Console, document: dict[str, Any]) -> None:
    counts(console, document)
    for series in document["series"]:
        latest = series["latest"]
        console.print(f"[bold]{latest['id']}[/]: {coloured(latest['state'])}, "
                      f"{latest['n']} decisions")  # fmt: skip
        for sentence in latest["words"]:
            console.print(f"  {sentence}", highlight=False)
        for found in latest["bias"]:
            for group in found["groups"]:
                console.print(f"  group {found['key']} `{escape(group['value'])}`: "
                              f"{coloured(group['state'])}, {group['n']} decisions, "
                              f"{group['rate']:.1%} favourable", highlight=False)  # fmt: skip
        for one in latest.get("slices", ()):
            console.print(f"  slice {one['key']} `{escape(one['value'])}`: "
                          f"{coloured(one['state'])}, {one['n']} decisions, {one['compared']} "
                          "comparisons with its own past", highlight=False)  # fmt: skip
        if latest["reference"].startswith("none/"):  # no sample to show the values beside
            for feature in latest["features"]:
                console.print(f"  {about_values(feature)}", highlight=False)
    for found in document.get("pairs", ()):
        console.print(f"[bold]{found['version']}[/] beside {found['against']} on the same "
                      f"{found['decisions']} decisions")  # fmt: skip
        for group in found["groups"]:
            console.print(f"  {about_pair(group)}", highlight=False)
    if not document["series"]:
        console.print("No window has closed yet; of a version with a card none does without "
                      "`monitor.reference`.")  # fmt: skip
    if (performed := document.get("performance")) is not None:
        performance(console, performed)


def window(console: Console, document: dict[str, Any]) -> None:
    """One window, what is not ok of it, and the command that lists its decisions."""
    n = document["counts"]["decisions"]
    console.print(f"[bold]{document['id']}[/]: {coloured(document['state'])}, {n} decisions from "
                  f"{document['opened_at']} to {document['closed_at']}")  # fmt: skip
    for sentence in document["words"]:
        console.print(f"  {sentence}", highlight=False)
    verdicts = document["verdicts"] or {}
    waiting = [cause for cause, state in verdicts.items() if state == "not_enough_data"]
    for cause, state in verdicts.items():
        if state != "not_enough_data":
            console.print(f"  {escape(cause)}: {coloured(state)}", highlight=False)
    if waiting:
        console.print(f"  not_enough_data for {len(waiting)} causes (--json lists them)")
    console.print(f"  {document['first_decision']} to {document['last_decision']}: headworks "
                  f"decisions --window {document['id']}", highlight=False)  # fmt: skip


def about_values(feature: dict[str, Any]) -> str:
    """What a window's values of one feature were, in a line."""
    found, name = feature["after"], f"`{feature['name']}`"
    if found["quantiles"] is not None:
        told = found["quantiles"]
        return (
            f"{name}: median {told['p50']:.4g}, nine in ten {told['p5']:.4g} to {told['p95']:.4g}"
        )
    if found["shares"] is not None:
        listed = [f"{word} {share:.1%}" for word, share in found["shares"].items() if share]
        return f"{name}: {', '.join(listed)}"
    return f"{name}: known of {found['n'] - found['missing']} of {found['n']}"


def performance(console: Console, document: dict[str, Any]) -> None:
    told = document["labels"]
    if not told["labels"]:
        return
    console.print(
        f"{told['labels']} labels of {told['decisions']} decisions: {told['corrected']} corrected "
        f"one, {told['duplicates']} changed nothing; on {told['contradicting']} decisions sources "
        f"differ; {document['unmatched']} labels (of all models) name no decision."
    )
    table = Table("predicted on", "version", "arm", "labelled", "accuracy", "AUC", "Brier",
                  "without labels", box=None)  # fmt: skip
    for row in document["cohorts"]:
        found, guess = row["realised"], row["estimated"]
        if found is None:
            continue
        figures = found["figures"]
        low, high = found["accuracy_interval"]
        table.add_row(
            row["day"], row["version"], row["arm"], f"{row['labelled']} ({row['coverage']:.0%})",
            f"{figures['accuracy']:.3f} [{low:.3f}, {high:.3f}]",
            _score(figures["auc"]), _score(figures["brier"]),
            f"accuracy {guess['accuracy']:.3f}, off by "
            f"{row['estimate_error']['accuracy']:+.3f} where labelled",
        )  # fmt: skip
    console.print(table)
    for row in document["cohorts"]:
        if row["unusable"]:
            console.print(f"{row['unusable']} labels of decisions of {row['day']} by "
                          f"{row['version']} ({row['arm']}) are no labels by its card: they are in "
                          "no figure.", highlight=False)  # fmt: skip
    for found in document["groups"]:
        for group in found["groups"]:
            console.print(about_group(found, group), highlight=False)
    for pair in document.get("pairs", ()):
        low, high = pair["interval"]
        console.print(
            f"On {pair['n']} labelled requests that both decided, {pair['version']} had "
            f"{pair['accuracy']:.1%} right and {pair['against']} {pair['accuracy_against']:.1%}: "
            f"{pair['difference']:+.1%} [{low:+.1%}, {high:+.1%}], p {pair['p_value']:.2g}.",
            highlight=False,
        )


def about_pair(group: dict[str, Any]) -> str:
    """One group under both versions in a sentence."""
    told = f"{coloured(group['state'])}  {group['key']} `{group['value']}`: {group['paired']['n']}"
    if group["state"] == "insufficient":
        return f"{told} decisions."
    paired = group["paired"]
    low, high = paired["interval"]
    waits = "; new decisions must confirm it" if group["breach_pending"] else ""
    return (f"{told} decisions; {paired['only_first']} only the other favours, "
            f"{paired['only_second']} only this one: {paired['difference']:+.1%} "
            f"[{low:+.1%}, {high:+.1%}]{waits}.")  # fmt: skip


def about_group(found: dict[str, Any], group: dict[str, Any]) -> str:
    """One group's labels in a sentence."""
    told = (f"{found['version']} ({found['arm']}), {group['key']} `{group['value']}`: "
            f"{group['labelled']} labels of {group['decisions']} decisions")  # fmt: skip
    gap = group["opportunity"]
    if gap["difference"] is None:
        return f"{told}."
    low, high = gap["difference_interval"]
    states = (f"; opportunity {coloured(gap['state'])}, odds {coloured(group['odds'])}, "
              f"calibration {coloured(group['calibration_state'])}")  # fmt: skip
    return (
        f"{told}{states}; of the good, {gap['share']:.1%} were favoured, "
        f"{gap['difference']:+.1%} against `{gap['against']}` "
        f"[{low:+.1%}, {high:+.1%}]."
    )


def counts(console: Console, document: dict[str, Any]) -> None:
    table = Table("version", "arm", "decisions", "outcomes", "mean score", "explained", box=None)
    for row in document["counts"]:
        outcomes = ", ".join(f"{name} {n}" for name, n in row["outcomes"].items() if name)
        explained = f"{row['explained'] / row['decisions']:.1%}"
        cells = (str(row["decisions"]), outcomes, _score(row["mean_score"]), explained)
        table.add_row(row["version"], row["arm"], *cells)
    console.print(table)
    for row in document["agreement"]:
        console.print(f"shadow {row['shadow']} agrees with {row['primary']} ({row['arm']}) on "
                      f"{row['same_outcome']} of {row['decisions']} outcomes "
                      f"({row['same_outcome'] / row['decisions']:.1%})")  # fmt: skip


def backtest(console: Console, document: dict[str, Any]) -> None:
    would, was = document["would"], document["was"]
    if would is None:
        console.print("No decision since then.")
        return
    table = Table("", "with these settings", "as it was said", box=None)
    for kind in ("windows", "events"):
        for name in sorted({*would[kind], *was[kind]}):
            cells = (str(told[kind].get(name, 0)) for told in (would, was))
            table.add_row(f"{kind.removesuffix('s')} {name}", *cells)
    console.print(table)
    for told in would["happenings"]:
        console.print(f"{told['event']} {told['alert']} ({told['severity']}), {told['window']}",
                      highlight=False)  # fmt: skip
    stopped = "; it stopped there" if would["stopped"] else ""
    console.print(f"{would['decisions']} decisions from leaf {document['first_leaf']}{stopped}.")


def alerts(console: Console, document: dict[str, Any]) -> None:
    for told in document["alerts"]:
        muted = (
            f", muted until {isoformat(told['muted_until'])[:19]}" if told["muted_until"] else ""
        )
        colour = "bold red" if told["severity"] == "critical" else "yellow"
        console.print(f"[bold]{told['id']}[/]: [{colour}]{told['severity']}[/], {told['state']}"
                      f"{muted}, {told['windows']} windows; {told['last']['event']} at "
                      f"{told['last']['at'][:19]}; arms: {' '.join(told['raising']) or 'none'}",
                      highlight=False)  # fmt: skip
    if not document["alerts"]:
        console.print("No alert is open.")
