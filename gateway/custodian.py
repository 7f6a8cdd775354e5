"""The governor's API of erasure, hold and retention: who may, and what the answer is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.ledger.holds import HoldRefused
from gateway.seal.custody import Custody, Refused

ROLE = "privacy"


def custody_routes(custody: Custody) -> list[Route]:
    async def find(request: Request) -> Response:
        return await _done(
            custody, request, lambda told, by: custody.find(str(told.get("subject", "")))
        )

    async def erase(request: Request) -> Response:
        return await _done(custody, request, custody.erase)

    async def holds(request: Request) -> Response:
        if request.method == "GET":
            if custody.holds.damage is not None:
                return _refused(503, "holds_damaged", custody.holds.damage)
            return JSONResponse(custody.told_holds())
        return await _done(custody, request, custody.change_hold)

    return [
        Route("/subjects/find", find, methods=["POST"]),
        Route("/subjects/erase", erase, methods=["POST"]),
        Route("/holds", holds, methods=["GET", "POST"]),
    ]


async def _done(
    custody: Custody, request: Request, act: Callable[[dict[str, Any], str], dict[str, Any]]
) -> Response:
    roles = request.headers.get("x-headworks-roles")
    if roles is not None and ROLE not in roles.split(","):
        return _refused(403, "forbidden", f"the role {ROLE!r} is wanted")
    try:
        told = orjson.loads(await request.body())
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return _refused(400, "bad_parameter", "a JSON object is wanted")
    by = request.headers.get("x-headworks-person", "local")
    try:
        asked = await asyncio.to_thread(custody.resolve, told)
        done = await asyncio.wrap_future(custody.sealer.call(lambda: act(asked, by)))
    except Refused as refused:
        return _refused(refused.status, refused.code, str(refused))
    except HoldRefused as refused:
        return _refused(409, "hold_refused", str(refused))
    return JSONResponse(done)


def _refused(status: int, code: str, words: str) -> JSONResponse:
    return JSONResponse({"error": words, "code": code}, status)
