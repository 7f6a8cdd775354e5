"""`headworks subject`: find a person's token, erase them, hold models and exchanges."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from gateway.commands.terminal import (
    CONFIG,
    EXIT_FOUND,
    EXIT_USAGE,
    Config,
    Json,
    Set,
    admin,
    ask,
    dump,
    fail,
)  # fmt: skip

SUBJECT_CHARACTERS_MAX = 8192

subject = typer.Typer(
    help="Find, erase and hold what is recorded of a person.", no_args_is_help=True
)

Reason = Annotated[
    str, typer.Option("--reason", help="Why; it is recorded for ever: name no person in it.")
]
Decision = Annotated[
    str | None, typer.Option("--decision", help="A decision's id, instead of a token.")
]
Decisions = Annotated[
    list[str] | None, typer.Option("--decision", help="Ids of decisions, instead of a model.")
]


@subject.command()
def find(config: Config = CONFIG, set_: Set = None, json: Json = False) -> None:
    """Print the token of the person named on standard input, and how many bodies they have.

    The name is read from standard input so that it stands in no shell history or process list.
    """
    name = sys.stdin.readline(SUBJECT_CHARACTERS_MAX + 2).rstrip("\r\n")
    if not 0 < len(name) <= SUBJECT_CHARACTERS_MAX:
        fail(f"a name of 1 to {SUBJECT_CHARACTERS_MAX} characters is wanted on standard input")
    told = _post(config, set_, "/api/v1/subjects/find", {"subject": name})
    if json:
        dump(told)
    elif told["token"] is None:
        print("nobody of this name is recorded", file=sys.stderr)
    else:
        print(f"token {told['token']}: {told['count']} bodies")
    if told["token"] is None:
        raise typer.Exit(EXIT_FOUND)


@subject.command()
def erase(
    reason: Reason,
    token: Annotated[int | None, typer.Argument(help="As `subject find` prints it.")] = None,
    decision: Decision = None,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Destroy the keys and the bodies of a person, or of an exchange without one, for ever.

    Exit code 1 if a legal hold defers it: it is carried out when the hold is released.
    """
    if (token is None) == (decision is None):
        fail("a token or --decision is wanted, one of both")
    about = {"token": token} if token is not None else {"decision": decision}
    told = _post(config, set_, "/api/v1/subjects/erase", about | {"reason": reason})
    if json:
        dump(told)
    elif told.get("deferred"):
        print(f"deferred: held by {', '.join(told['holds'])}")
    else:
        print(f"erased: {told['keys']} keys, {told['blobs']} bodies; leaf {told['leaf']} of root")
        for word, ids in (("held", told["exports"]), ("may have held", told["exports_perhaps"])):
            if ids:
                print(f"exports that {word} them, for you to erase: {', '.join(ids)}")
    if told.get("deferred"):
        raise typer.Exit(EXIT_FOUND)


@subject.command()
def hold(
    reason: Reason,
    model: Annotated[str | None, typer.Argument(help="The model; or give --decision.")] = None,
    decision: Decisions = None,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Keep a model's records, or some decisions, from retention and erasure; prints the hold."""
    if (model is None) == (not decision):
        fail("a model or --decision is wanted, one of both")
    about: dict[str, Any] = {"model": model} if model else {"decisions": decision}
    document = about | {"reason": reason, "action": "hold"}
    told = _post(config, set_, "/api/v1/holds", document)
    if json:
        dump(told)
    else:
        print(f"hold {told['hold']} is in force")


@subject.command()
def release(
    hold: Annotated[str, typer.Argument(help="As `subject holds` prints it.")],
    reason: Reason,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """End one hold; erasures that waited for it alone are carried out."""
    document = {"hold": hold, "reason": reason, "action": "release"}
    told = _post(config, set_, "/api/v1/holds", document)
    if json:
        dump(told)
    else:
        print(f"hold {hold} is released; {len(told.get('erased', []))} deferred erasures done")


@subject.command()
def holds(config: Config = CONFIG, set_: Set = None, json: Json = False) -> None:
    """Print the holds in force and the erasures that wait."""
    told = ask(config, set_, "/api/v1/holds")
    if json:
        dump(told)
        return
    for one in told["holds"]:
        what = one["model"] or f"{len(one['exchanges'])} exchanges"
        print(f"{one['id']}  {what}  by {one['by']}: {one['reason']}")
    for one in told["deferred"]:
        print(f"deferred erasure {one['id']} by {one['by']}: {one['reason']}")


def _post(config: Any, set_: list[str] | None, path: str, document: dict[str, Any]) -> Any:
    """The API's answer; its refusals and absence end the command in their own words."""
    from gateway.adminclient import Refused, Unreachable

    try:
        return admin(config, set_).post(path, document)
    except Unreachable as error:
        return fail(f"no gateway answers: {error}", EXIT_FOUND)
    except Refused as error:
        return fail(str(error), EXIT_USAGE if error.status == 400 else EXIT_FOUND)
