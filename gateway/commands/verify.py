"""`headworks ledger verify` and `headworks ledger prove`: arguments in, one library call out."""

from __future__ import annotations

import base64
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import orjson
import typer

from gateway.commands.terminal import CONFIG, Config, Set, overrides, post

if TYPE_CHECKING:
    from gateway.verify.fault import Report

EXIT_FOUND = 1
EXIT_USAGE = 2
ledger = typer.Typer(help="Verify the ledger, prove what is in it.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(words: str, code: int) -> NoReturn:
    print(f"headworks: {words}", file=sys.stderr)
    raise typer.Exit(code)


def ledger_folder(config: Path, set_: list[str] | None) -> Path:
    return configured(config, set_)[0]


def configured(config: Path, set_: list[str] | None) -> tuple[Path, Path]:
    """Where the configured gateway has its ledger, and its keys."""
    from gateway.check import check

    if not config.is_file():
        fail(f"{config} is not there: say which folder", EXIT_USAGE)
    checked = check(config, overrides(set_))
    if checked.settings is None:
        fail(f"{config}: {len(checked.problems)} problems; headworks check names them", EXIT_FOUND)
    settings = checked.settings
    return checked.resolve(settings.state) / "ledger", checked.resolve(settings.keys)


@ledger.command()
def verify(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="A ledger, a copy of it, or one log's folder; absent: the configuration's.",
        ),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Whom to believe; absent: the ledger's own `policy`.")
    ] = None,
    bodies: Annotated[
        bool, typer.Option(help="Check the blobs of state/bodies, where it is beside.")
    ] = True,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="The folder `keys`: is each body's there and whole? Absent: the configuration's, "
            "if DIR is absent too."
        ),
    ] = None,
    trees: Annotated[
        bool,
        typer.Option("--trees", help="Only trees, signatures and order; read no leaf, no body."),
    ] = False,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Recompute everything from the raw files; exit code 1 if anything does not hold."""
    if folder is None:
        folder, own_keys = configured(config, set_)
        keys = keys or own_keys
    from gateway.verify.ledger import find_policy, is_ledger, open_policy, verify_ledger, verify_log
    from gateway.verify.verify_evidence import Wrong

    if not folder.is_dir():
        fail(f"{folder}: no such folder", EXIT_USAGE)
    place = policy or find_policy(folder)
    if place is None:
        fail(
            f"{folder}: no policy in it or above it; say whom to believe with --policy", EXIT_USAGE
        )
    began = time.perf_counter()
    try:
        believed = open_policy(place)
    except Wrong as wrong:
        fail(f"{place}: {wrong}", EXIT_FOUND)
    if not believed.logs or not believed.logs[0].name.endswith("/root"):
        fail(f"{place}: names no root log", EXIT_FOUND)
    if is_ledger(folder):
        beside = folder.resolve().parent / "bodies"
        place_of_bodies = beside if bodies and not trees and beside.is_dir() else None
        report = verify_ledger(
            folder, believed, place_of_bodies, strict=policy is not None, leaves=not trees,
            keys=keys,
        )  # fmt: skip
    else:
        report = verify_log(folder, believed, strict=policy is not None)
    report.seconds = round(time.perf_counter() - began, 3)
    if json:
        print(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        show(report, place)
    if not report.holds:
        raise typer.Exit(EXIT_FOUND)


def show(report: Report, policy: Path) -> None:
    from gateway.verify.verify_evidence import utc

    print(f"believing {policy}")
    for log in report.logs:
        state = "FAULT" if log.fault else "ok"
        signed = f"{log.signed} signed" + (f", {log.witnessed} witnessed" if log.witnessed else "")
        print(f"{state:5}  {log.origin}: {log.entries} entries recomputed, {signed}")
        for witness, at in log.witnesses.items():
            print(f"       the witness {witness} saw {log.witnessed} at {utc(at * 10**9)}")
    for note in report.notes:
        print(f"note   {note}")
    if report.bodies:
        print("bodies " + ", ".join(f"{count} {kind}" for kind, count in report.bodies.items()))
    for fault in report.faults:
        print(f"FAULT  {fault}")
    rate = report.leaves / report.seconds if report.seconds else 0
    words = "everything holds" if report.holds else f"{len(report.faults)} faults"
    print(f"{report.leaves} leaves in {report.seconds:.1f} s ({rate:,.0f} a second): {words}")


@ledger.command()
def prove(
    id: Annotated[str, typer.Argument(help="An exchange, or one decision of it.")],
    receipt: Annotated[
        Path | None, typer.Option(help="A file with the receipt that the caller was given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write; evidence-ID.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--ledger", help="The ledger's folder; absent: the configuration's."),
    ] = None,
    body: Annotated[
        str | None,
        typer.Option(help="Put what was sent in, too; why you read it, for the ledger."),
    ] = None,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Write the evidence for one exchange; with a receipt say whether the ledger agrees.

    --body asks the running gateway, which records who read it and why before it answers.
    """
    parts = None
    if body is not None:
        asked = {"purpose": body, "parts": True}
        told = post(config, set_, f"/api/v1/decisions/{id}/reveal", asked)["parts"]
        if told is None:
            fail(f"{id}: its body is not there any more", EXIT_FOUND)
        parts = base64.b64decode(told)
    write_proof(folder or ledger_folder(config, set_), id, out, receipt, parts, json)


def write_proof(
    folder: Path, identity: str, out: Path | None, receipt: Path | None, parts: bytes | None,
    json: bool,
) -> None:  # fmt: skip
    """As `prove`; `parts` is the decrypted body, from who was allowed to read it."""
    from gateway.ledger.evidence import Missing, Unproved, write_evidence
    from gateway.verify.verify_evidence import Wrong

    target = out or Path(f"evidence-{identity.replace('/', '-')}")
    try:
        text = receipt.read_text() if receipt else None
        found = write_evidence(folder, identity, target, text, parts)
    except Missing as error:
        fail(f"the leaf is missing: {error}", EXIT_FOUND)
    except (Unproved, Wrong, FileExistsError) as error:
        fail(str(error), EXIT_FOUND)
    except (OSError, UnicodeDecodeError) as error:
        fail(str(error), EXIT_USAGE)
    leaf = found.leaf
    if json:
        told = {"id": identity, "log": leaf.log, "index": leaf.index, "size": found.size,
                "witnessed": found.witnessed, "folder": str(target), "files": found.files,
                "disagreements": found.disagreements, "notes": found.notes}  # fmt: skip
        print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"{identity} is entry {leaf.index} of {leaf.log}, proven among {found.size}")
        for words in found.notes:
            print(f"note   {words}")
        if receipt:
            print("receipt and leaf " + ("DISAGREE" if found.disagreements else "agree"))
        for words in found.disagreements:
            print(f"WRONG  {words}")
        print(f"{target}: python3 {target}/verify_evidence.py {target}")
    if found.disagreements:
        raise typer.Exit(EXIT_FOUND)


@ledger.command("rebuild-catalog")
def rebuild_catalog(config: Config = CONFIG, set_: Set = None) -> None:
    """Make the catalog again from the ledger, while the gateway serves."""
    told = post(config, set_, "/api/v1/catalog/rebuild", {})
    print(f"the catalog was made again from {told['leaves']} leaves")


@ledger.command()
def export(
    parquet: Annotated[Path, typer.Option("--parquet", help="Folder for the file.")],
    model: Annotated[str, typer.Option(help="The model.")],
    day: Annotated[str, typer.Option(help="A day, UTC, as 2026-11-23.")],
    purpose: Annotated[str, typer.Option(help="Why; the ledger keeps it.")],
    values: Annotated[bool, typer.Option("--values", help="What people sent, too.")] = False,
    config: Config = CONFIG,
    set_: Set = None,
) -> None:
    """Write a model's decisions of a day as Parquet; a leaf says who asked, why and for what."""
    asked = {"model": model, "day": day, "purpose": purpose, "values": values,
             "folder": str(parquet.resolve())}  # fmt: skip
    told = post(config, set_, "/api/v1/exports", asked)
    print(
        f"export {told['id']}: {told['rows']} rows"
        + (f" in {told['file']}" if told["rows"] else "")
    )
