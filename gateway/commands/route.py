"""`headworks route`: the table in force, its history, reverts; what would happen to a request."""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.terminal import (
    CONFIG,
    EXIT_FOUND,
    Config,
    Json,
    Set,
    admin,
    ask,
    fail,
    overrides,
    post,
    show,
)

route = typer.Typer(help="Rules, revisions, and what they do with a request.", no_args_is_help=True)

Limit = Annotated[int, typer.Option(min=1, max=1000)]
Reason = Annotated[str, typer.Option(help="Why, for the ledger.")]
Header = Annotated[list[str] | None, typer.Option("--header", "-H", help="name: value")]
Draft = Annotated[Path | None, typer.Option(help="A configuration file not in force.")]


@route.command("show")
def show_table(
    revision: Annotated[str, typer.Argument(help="Digest, number, current, previous.")] = "current",
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """The rules of a revision, and what it changed."""
    from gateway.report import routes

    show(ask(config, set_, f"/api/v1/revisions/{revision}"), json, routes.revision)


@route.command()
def history(
    config: Config = CONFIG, set_: Set = None, json: Json = False, limit: Limit = 20
) -> None:
    """Revisions, the one in force first: who made them, when and why."""
    from gateway.report import routes

    show(ask(config, set_, "/api/v1/revisions", limit=limit), json, routes.history)


@route.command()
def diff(
    before: str,
    after: Annotated[str, typer.Argument()] = "current",
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """What differs between two revisions."""
    from gateway.report import routes

    document = ask(config, set_, f"/api/v1/revisions/{after}", against=before)
    show(document, json, routes.changes)


@route.command()
def put(
    rules: Annotated[Path, typer.Argument(help="YAML or JSON: reason, and rules by model.")],
    made_for: Annotated[str, typer.Option(help="The revision, whole, that it was made for.")],
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Put rules in the place of models' rules. If another revision is in force by now, nothing is
    changed, and what it changed is shown."""
    from gateway.adminclient import Refused, Unreachable
    from gateway.report import routes

    if not rules.is_file():
        fail(f"{rules}: there is no such file")
    try:
        told = admin(config, set_).put("/api/v1/table", rules.read_bytes(), made_for)
    except Unreachable as error:
        fail(f"no gateway answers: {error}", EXIT_FOUND)
    except Refused as error:
        show(error.document, json, routes.refused)
        raise typer.Exit(EXIT_FOUND) from None
    show(told, json, routes.published)


@route.command()
def revert(
    revision: Annotated[str, typer.Argument(help="Digest, number or previous.")],
    reason: Reason,
    offline: Annotated[
        bool, typer.Option("--offline", help="Without the governor, on the state itself.")
    ] = False,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Bring a revision back into force, as a new one. A rollout is never widened by it."""
    from gateway.report import routes

    if offline:
        told = _revert_offline(revision, reason, config, set_)
    else:
        told = post(config, set_, f"/api/v1/revisions/{revision}/revert", {"reason": reason})

    show(told, json, routes.published)


def _revert_offline(
    named: str, reason: str, config: Path, set_: list[str] | None
) -> dict[str, Any]:
    """Under the table's lock. Workers follow the file; the governor seals it when it is back."""
    from gateway.disk import Occupied
    from gateway.table import Conflict

    revisions, _ = _revisions(config, set_)
    author = os.environ.get("HEADWORKS_PERSON") or f"{getpass.getuser()} (offline)"
    if not 5 <= len(reason.strip()) <= 500:
        fail("--reason: 5 to 500 characters are wanted")
    try:
        done = revisions.revert(revisions.find(named), author=author, reason=reason.strip())
    except LookupError as error:
        fail(str(error), EXIT_FOUND)
    except (Conflict, Occupied, ValueError, OSError) as error:
        fail(f"nothing was changed: {error}", EXIT_FOUND)
    return {"revision": done.revision, "changed": done.changed, "ended": list(done.ended),
            "warnings": []}  # fmt: skip


def _revisions(config: Path, set_: list[str] | None) -> Any:
    """The state's revisions, without a gateway, and the checked file."""
    from gateway.artifacts import Artifacts
    from gateway.check import check
    from gateway.clock import SystemClock
    from gateway.revision.revisions import Revisions
    from gateway.table import TableStore
    from gateway.yamlfile import YamlFile

    laid = overrides(set_)
    checked = check(config, laid)
    tree = YamlFile(checked.path, checked.path.name, []).tree
    named = laid.get("state") or (tree.get("state") if isinstance(tree, dict) else None)
    state = checked.resolve(named if isinstance(named, str) else "./state")
    return Revisions(TableStore(state), Artifacts(state), SystemClock().wall), checked


@route.command()
def export(config: Config = CONFIG, set_: Set = None) -> None:
    """Write the table in force as a configuration file that loads to the same table."""
    from gateway.revision.tablefile import write_table

    revisions, checked = _revisions(config, set_)
    try:
        revision, document = revisions.current()
    except LookupError as error:
        fail(str(error), EXIT_FOUND)
    print(f"# The table in force: revision {revision[:12]}, number {document['number']}.")
    sys.stdout.write(write_table(document, checked, revisions.artifacts))


@route.command()
def trace(
    method: str,
    path: str,
    header: Header = None,
    body: Annotated[str | None, typer.Option(help="Text, or @FILE.")] = None,
    caller: Annotated[str | None, typer.Option(help="Name of a caller.")] = None,
    exchange: Annotated[str | None, typer.Option(help="Id that draws are made by.")] = None,
    draft: Draft = None,
    revision: Annotated[str, typer.Option(help="Digest, number, previous.")] = "current",
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """What a request would have: rule, bucket, arm, version, limits, shadows. Nothing is sent."""
    from gateway.report import routes

    headers = dict(_header(text) for text in header or [])
    text = body or ""
    data = Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
    if draft is not None:
        show(_trace_draft(draft, method, path, headers, data, caller, exchange), json,
             routes.trace)  # fmt: skip
        return
    import base64

    asked: dict[str, Any] = {"method": method, "path": path, "headers": headers,
                             "body_base64": base64.b64encode(data).decode(),
                             "revision": revision}  # fmt: skip
    asked |= {"caller": caller} if caller is not None else {}
    asked |= {"exchange": exchange} if exchange is not None else {}
    show(post(config, set_, "/api/v1/routes/trace", asked), json, routes.trace)


def _header(text: str) -> tuple[str, str]:
    """`name: value`, or `name=value`."""
    match = re.match(r"^([A-Za-z0-9_-]+)\s*[:=]\s*(.*)$", text)
    if match is None:
        fail(f"--header {text}: name: value is wanted")
    return match[1].lower(), match[2].strip()


def _trace_draft(
    draft: Path, method: str, path: str, headers: dict[str, str], body: bytes,
    caller: str | None, exchange: str | None,
) -> dict[str, Any]:  # fmt: skip
    from gateway.clock import SystemClock
    from gateway.exchange import exchange_id
    from gateway.routing.trace import Described
    from gateway.routing.trace import trace as traced

    given = exchange or exchange_id(SystemClock().wall())
    described = Described(method, path, tuple(headers.items()), body, caller, given)
    return traced(draft_table(draft), described)


def draft_table(draft: Path) -> Any:
    """The table of a file, compiled, with nothing copied and nothing published."""
    from gateway.revision.drafts import compile_draft

    return compile_draft(_checked(draft))


def _checked(draft: Path) -> Any:
    from gateway.check import check

    checked = check(draft)
    if checked.settings is None:
        for problem in checked.problems:
            print(problem, file=sys.stderr)
        fail(f"{draft}: {len(checked.problems)} problems", EXIT_FOUND)
    return checked


@route.command("try")
def try_(
    draft: Annotated[Path, typer.Option(help="A configuration file not in force: its rules.")],
    last: Annotated[int, typer.Option(min=1, max=100_000)] = 10_000,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Recorded requests against a draft: which would change version, stay, or are unknown."""
    from gateway.report import routes

    words = {"reason": "a trial", "models": _rules_of(draft)}
    asked = {"last": last, "draft": words}
    show(post(config, set_, "/api/v1/routes/try", asked), json, routes.trial)


def _rules_of(draft: Path) -> dict[str, Any]:
    """The rules of a checked file, in a file's words."""
    from gateway.table import rule_document
    from gateway.wording import rule_words

    checked = _checked(draft)
    return {
        name: {"rules": [rule_words(rule_document(rule.model_dump(mode="json")))
                         for rule in model.rules]}
        for name, model in checked.settings.models.items()
    }  # fmt: skip


@route.command("test")
def hold_against(
    tests: Annotated[Path, typer.Argument(help="A file of requests and what is expected.")],
    fail_under: Annotated[
        float, typer.Option(min=0, max=100, help="Per cent of rules that tests reach.")
    ] = 0.0,
    config: Config = CONFIG,
    json: Json = False,
) -> None:
    """Hold the configuration file's rules against tests; needs no gateway."""
    from gateway.report import routes
    from gateway.routetests import RouteTests, run
    from gateway.yamlfile import check_document

    if not tests.is_file():
        fail(f"{tests}: there is no such file")
    told, _, problems = check_document(tests.read_bytes(), tests.name, RouteTests)
    for problem in problems:
        print(problem, file=sys.stderr)
    if told is None:
        fail(f"{tests}: {len(problems)} problems", EXIT_FOUND)
    result = run(draft_table(config), told)
    document = {
        "tests": result.count,
        "failed": [{"name": name, "words": words} for name, words in result.failed],
        "coverage": round(result.coverage, 1),
        "unreached": [f"{model}/{rule}" for model, rule in result.unreached],
    }
    show(document, json, routes.tests)
    if result.failed or result.coverage < fail_under:
        raise typer.Exit(EXIT_FOUND)
