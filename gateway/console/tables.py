"""The table in force, its history, differences, and traces through it: what the admin port reads.

Writes are the governor's (`gateway/revision/publisher.py`); all of this needs only files.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.clock import SystemClock, isoformat
from gateway.console.trial import LAST_MAX, newest, try_draft
from gateway.exchange import exchange_id
from gateway.revision.difference import difference, shown_rule
from gateway.revision.edit import read_edit
from gateway.revision.revisions import Revisions, put_rules
from gateway.routing.trace import Described, trace
from gateway.table import Table, compile_table

if TYPE_CHECKING:
    from gateway.console.api import Api

LISTED, LISTED_MAX = 50, 1000
LAST = 10_000
ASKED_BYTES_MAX = 4 * 1024**2


class Wrong(Exception):
    """What was asked for cannot be told; `status` and `code` as the API says them."""

    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status, self.code = status, code


class Tables:
    def __init__(self, revisions: Revisions, clock: SystemClock, api: Api) -> None:
        """`revisions` is only read."""
        self.revisions, self.clock, self.api = revisions, clock, api

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/table", self.table, methods=["GET"]),
            Route("/api/v1/revisions", self.history, methods=["GET"]),
            Route("/api/v1/revisions/{revision}", self.revision, methods=["GET"]),
            Route("/api/v1/routes/trace", self.traced, methods=["POST"]),
            Route("/api/v1/routes/try", self.tried, methods=["POST"]),
        ]

    async def table(self, request: Request) -> Response:
        """The table in force; its tag is what an edit gives in If-Match."""
        return await self.told(lambda: self.shown("current"))

    async def revision(self, request: Request) -> Response:
        """One revision, and what it changed: against its parent, or `against` another."""
        named = request.path_params["revision"]
        against = request.query_params.get("against")
        return await self.told(lambda: self.compared(named, against))

    async def history(self, request: Request) -> Response:
        return await self.told(lambda: {"revisions": self.listed(request.query_params)})

    async def traced(self, request: Request) -> Response:
        body = await request.body()
        return await self.told(lambda: self.trace(body))

    async def tried(self, request: Request) -> Response:
        """Recorded requests against a draft, once a leaf says that a machine reads them."""
        asked = await request.body()
        by = request.headers.get("x-headworks-person", "local")
        try:
            last, draft = await asyncio.to_thread(self._draft_of, asked)
            leaves = await asyncio.to_thread(self.api.asked, newest, last)
            record = {"job": "try", "exchanges": len(leaves), "by": by}
            reading = await self.api.governor.tell("reading", record)
        except Wrong as wrong:
            return _refuse(wrong)
        except OSError as error:
            words = f"reading cannot be recorded now: {error}"
            return _refuse(Wrong(503, "governor_down", words))
        current = await asyncio.to_thread(self._table, {})
        found = await asyncio.to_thread(
            try_draft, leaves, draft, current, self.api.state, self.api.bodies
        )
        return Response(orjson.dumps(found | {"reading": reading}), media_type="application/json")

    def _draft_of(self, body: bytes) -> tuple[int, Table]:
        asked = _object(body)
        last = asked.get("last", LAST)
        if type(last) is not int or not 0 < last <= LAST_MAX:
            raise Wrong(400, "bad_parameter", f"last={str(last)[:40]!r}: 1 to {LAST_MAX} is wanted")
        if asked.get("draft") is None:
            raise Wrong(400, "bad_parameter", "draft: rules are wanted, as edit_table takes them")
        return last, self._table({"draft": asked["draft"]})

    async def told(self, tell: Any) -> Response:
        try:
            document = await asyncio.to_thread(tell)
        except Wrong as wrong:
            return _refuse(wrong)
        headers = {"etag": f'"{document["revision"]}"'} if "models" in document else None
        return Response(orjson.dumps(document), 200, headers, media_type="application/json")

    def listed(self, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        for name in parameters:
            if name != "limit":
                raise Wrong(400, "bad_parameter", f"{name}: unknown; known: limit")
        limit = parameters.get("limit", str(LISTED))
        if not limit.isdigit() or not 0 < int(limit[:9]) <= LISTED_MAX:
            words = f"limit={limit[:40]!r}: 1 to {LISTED_MAX} is wanted"
            raise Wrong(400, "bad_parameter", words)
        return [_dated(told) for told in islice(self.revisions.history(), int(limit))]

    def shown(self, named: str) -> dict[str, Any]:
        revision, document = self._read(named)
        keys = ("number", "parent", "author", "reason", "created")
        told = {key: document[key] for key in keys} | {"origin": document.get("origin", "file")}
        models = {
            name: {
                "versions": list(model["versions"]),
                "rules": [shown_rule(rule) for rule in model["rules"]],
            }
            for name, model in document["models"].items()
        }
        return _dated({"revision": revision, **told, "models": models})

    def compared(self, named: str, against: str | None) -> dict[str, Any]:
        shown = self.shown(named)
        _, after = self._read(shown["revision"])
        other = against or shown["parent"]
        if other is None:
            return shown | {"against": None, "difference": []}
        revision, before = self._read(other)
        return shown | {"against": revision, "difference": difference(before, after)}

    def _read(self, named: str) -> tuple[str, dict[str, Any]]:
        try:
            revision = self.revisions.find(named)
        except LookupError as error:
            raise Wrong(404, "unknown_revision", str(error)) from None
        return revision, orjson.loads(self.revisions.tables.read(revision))

    def trace(self, body: bytes) -> dict[str, Any]:
        """Of the request that `body` describes, through a revision or a draft of rules."""
        asked = _object(body)
        table = self._table(asked)
        return trace(table, read_described(asked, exchange_id(self.clock.wall())))

    def _table(self, asked: Mapping[str, Any]) -> Table:
        _, document = self._read(str(asked.get("revision", "current")))
        draft = asked.get("draft")
        if draft is not None:
            text = draft.encode() if isinstance(draft, str) else orjson.dumps(draft)
            edit = read_edit(text, document)
            if edit.problems:
                words = "; ".join(str(problem) for problem in edit.problems[:5])
                raise Wrong(422, "bad_table", words)
            put_rules(document, edit)
        try:
            return compile_table(orjson.dumps(document))
        except ValueError as error:
            raise Wrong(422, "bad_table", str(error)) from None


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > ASKED_BYTES_MAX:
        raise Wrong(413, "request_too_large", f"more than {ASKED_BYTES_MAX} bytes")
    try:
        asked = orjson.loads(body)
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise Wrong(400, "bad_parameter", "a JSON object is wanted")
    return asked


def _refuse(wrong: Wrong) -> Response:
    told = {"error": str(wrong), "code": wrong.code}
    return Response(orjson.dumps(told), wrong.status, media_type="application/json")


KNOWN = ("method", "path", "headers", "body", "body_base64", "caller", "exchange", "revision",
         "draft")  # fmt: skip


def read_described(asked: Mapping[str, Any], exchange: str) -> Described:
    """Wrong names what was sent."""
    for name in asked:
        if name not in KNOWN:
            raise Wrong(400, "bad_parameter", f"{name}: unknown; known: {', '.join(KNOWN)}")
    path, method = asked.get("path"), asked.get("method", "POST")
    if not isinstance(path, str) or not path.startswith("/"):
        raise Wrong(400, "bad_parameter", f"path={str(path)[:40]!r}: a path is wanted")
    headers = asked.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        raise Wrong(400, "bad_parameter", "headers: an object of texts is wanted")
    caller, given = asked.get("caller"), asked.get("exchange", exchange)
    if not all(isinstance(one, str) for one in (method, given, caller or "")):
        raise Wrong(400, "bad_parameter", "method, caller, exchange: texts are wanted")
    return Described(method, path, tuple(headers.items()), _body(asked), caller, given)


def _body(asked: Mapping[str, Any]) -> bytes:
    """As a text, as bytes in base64, or as JSON that is written for it."""
    if "body_base64" in asked:
        try:
            return base64.b64decode(str(asked["body_base64"]), validate=True)
        except binascii.Error:
            raise Wrong(400, "bad_parameter", "body_base64: not base64") from None
    body = asked.get("body", "")
    return body.encode() if isinstance(body, str) else orjson.dumps(body)


def _dated(told: dict[str, Any]) -> dict[str, Any]:
    return told | {"created": isoformat(told["created"])}
