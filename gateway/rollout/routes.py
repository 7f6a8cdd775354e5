"""The governor's API of rollouts: who asks, what is answered. What is done is in `steward.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.revision.revisions import Owned
from gateway.rollout.attempt import Attempt
from gateway.rollout.chronicle import Chronicle
from gateway.rollout.controller import Illegal, Rollouts
from gateway.rollout.standing import standing, summary
from gateway.rollout.steward import Person, Refused, Steward, read_reason
from gateway.table import Conflict
from gateway.yamlfile import Problem

ACTS = ("approve", "pause", "resume", "abort", "promote")
EVENTS_MAX = 10_000


def rollout_routes(rollouts: Rollouts) -> list[Route]:
    steward = Steward(rollouts)

    async def listed(request: Request) -> Response:
        told = await _call(rollouts, lambda: _list(rollouts))
        return JSONResponse({"rollouts": told})

    async def start(request: Request) -> Response:
        return await _done(rollouts, request, lambda told, who: steward.start(
            str(told.get("file", "")).encode(), str(told.get("name", "rollout.yaml"))[:100], who
        ))  # fmt: skip

    async def one(request: Request) -> Response:
        name = request.path_params["name"]
        told = await _call(rollouts, lambda: _one(rollouts, name))
        return JSONResponse(told) if told is not None else _unknown(name)

    async def history(request: Request) -> Response:
        name = request.path_params["name"]
        found = await asyncio.to_thread(_history, rollouts, name)
        return JSONResponse({"rollout": name, "events": found}) if found else _unknown(name)

    async def act(request: Request) -> Response:
        name, what = request.path_params["name"], request.path_params["act"]
        if what not in ACTS:
            return _refused(404, "unknown_path", f"{what[:40]!r} is none of {', '.join(ACTS)}")
        return await _done(
            rollouts, request, lambda told, who: _act(steward, what, name, told, who)
        )

    return [
        Route("/rollouts", listed, methods=["GET"]),
        Route("/rollouts", start, methods=["POST"]),
        Route("/rollouts/{name}", one, methods=["GET"]),
        Route("/rollouts/{name}/history", history, methods=["GET"]),
        Route("/rollouts/{name}/{act}", act, methods=["POST"]),
    ]


async def _call(rollouts: Rollouts, act: Callable[[], Any]) -> Any:
    """In the sealing thread: nothing moves while it is looked at."""
    return await asyncio.wrap_future(rollouts.sealer.call(act))


def _list(rollouts: Rollouts) -> list[dict[str, Any]]:
    return [summary(one, rollouts.troubles) for one in rollouts.attempts.values()]


def _one(rollouts: Rollouts, name: str) -> dict[str, Any] | None:
    attempt = rollouts.attempts.get(name)
    if attempt is None:
        return None
    return standing(attempt, rollouts.clock.steady(), rollouts.troubles)


def _history(rollouts: Rollouts, name: str) -> list[dict[str, Any]]:
    chronicle = Chronicle(rollouts.state)
    return [leaf.told() for leaf in chronicle.events(name)][-EVENTS_MAX:]


def _act(steward: Steward, what: str, name: str, told: dict[str, Any], who: Person) -> Attempt:
    if what == "approve":
        return steward.approve(name, who)
    why = read_reason(told.get("reason"))
    if what == "promote":
        fully = told.get("fully", False)
        if not isinstance(fully, bool):
            raise Refused(400, "bad_parameter", f"fully={str(fully)[:40]!r}: true or false")
        return steward.promote(name, who, why, fully)
    done: Attempt = getattr(steward, what)(name, who, why)
    return done


async def _done(
    rollouts: Rollouts, request: Request, act: Callable[[dict[str, Any], Person], Attempt]
) -> Response:
    told = _body(await request.body())
    if told is None:
        return _refused(400, "bad_parameter", "a JSON object is wanted")
    who = _person(request)

    def run() -> dict[str, Any]:
        attempt = act(told, who)
        if rollouts.is_dirty:
            rollouts.snapshot()
        return standing(attempt, rollouts.clock.steady(), rollouts.troubles)

    try:
        return JSONResponse(await _call(rollouts, run))
    except Refused as refused:
        problems = [_shown(one) for one in refused.problems]
        return _refused(refused.status, refused.code, str(refused), problems)
    except Illegal as error:
        return _refused(409, "not_now", str(error))
    except (Owned, Conflict) as error:
        return _refused(409, "rule_taken", str(error))


def _person(request: Request) -> Person:
    roles = request.headers.get("x-headworks-roles")
    known = frozenset(roles.split(",")) if roles is not None else None
    return Person(request.headers.get("x-headworks-person", "local"), known)


def _body(data: bytes) -> dict[str, Any] | None:
    try:
        told = orjson.loads(data or b"{}")
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _shown(problem: Problem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in ("file", "line", "key", "value", "allowed")}


def _unknown(name: str) -> Response:
    return _refused(404, "unknown_rollout", f"no rollout {name[:80]!r} is known")


def _refused(status: int, code: str, words: str, problems: Any = ()) -> Response:
    more = {"problems": problems} if problems else {}
    return JSONResponse({"error": words, "code": code, **more}, status)
