"""The governor's API of the table: edits, reverts, and what a refused file is told.

A write needs the revision that it was made for (`If-Match`), and, where there are people, the role
`sre`. What is refused changes nothing and is shown beside what is in force.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.check import Checked
from gateway.disk import Occupied
from gateway.revision.difference import difference, shown_rule
from gateway.revision.edit import REASON_MAX, REASON_MIN, Edit, read_edit
from gateway.revision.revisions import Clashing, Owned, Published, Revisions
from gateway.routing.lint import oddities
from gateway.table import Conflict
from gateway.yamlfile import Key, Problem, dotted

ROLE = "sre"
EDIT_BYTES_MAX = 1024**2
log = logging.getLogger("headworks.table")


class Refused(Exception):
    """`document` goes with the words."""

    def __init__(self, status: int, code: str, words: str, **document: Any) -> None:
        super().__init__(words)
        self.status, self.code, self.document = status, code, document


class Publisher:
    """One change at a time: `lock` is the governor's."""

    def __init__(self, revisions: Revisions, lock: asyncio.Lock) -> None:
        self.revisions, self._lock = revisions, lock

    def routes(self) -> list[Route]:
        return [
            Route("/table", self.edit, methods=["PUT"]),
            Route("/revisions/{revision}/revert", self.revert, methods=["POST"]),
        ]

    async def edit(self, request: Request) -> Response:
        body = await request.body()
        if len(body) > EDIT_BYTES_MAX:
            told = {"error": f"more than {EDIT_BYTES_MAX} bytes", "code": "request_too_large"}
            return _answer(told, 413, self.revisions.tables.current)
        return await self._done(request, lambda by, expected: self._edit(body, by, expected))

    async def revert(self, request: Request) -> Response:
        body = await request.body()
        named = request.path_params["revision"]
        return await self._done(
            request, lambda by, expected: self._revert(named, body, by, expected)
        )

    async def _done(
        self, request: Request, act: Callable[[str, str | None], Published]
    ) -> Response:
        try:
            by = _who(request)
            expected = _expected(request)
            async with self._lock:
                done = await asyncio.to_thread(self._guarded, act, by, expected)
        except Refused as refused:
            told = {"error": str(refused), "code": refused.code, **refused.document}
            return _answer(told, refused.status, self.revisions.tables.current)
        told = {"revision": done.revision, "changed": done.changed, "ended": list(done.ended),
                "warnings": self._warnings(done.revision)}  # fmt: skip
        return _answer(told, 200, done.revision)

    def _warnings(self, revision: str) -> list[str]:
        """What is odd about the table that is in force now."""
        table = self.revisions.tables.load(revision)
        return [
            f"models.{name}.rules.{model.rules[oddity.rule].name} {oddity.words}"
            for name, model in table.models.items()
            for oddity in oddities(model, table.callers)
        ]

    def _guarded(
        self, act: Callable[[str, str | None], Published], by: str, expected: str | None
    ) -> Published:
        try:
            return act(by, expected)
        except (Conflict, Occupied):
            raise self._conflict(expected) from None
        except Owned as error:
            shown = {"ours": _shown(error.ours), "theirs": _shown(error.theirs)}
            raise Refused(409, error.code, str(error), **shown) from None
        except ValueError as error:
            raise Refused(422, "bad_table", str(error)) from None

    def _conflict(self, expected: str | None) -> Refused:
        """Somebody was faster: what they changed."""
        current, document = self.revisions.current()
        words = f"revision {current[:12]} is in force, not {(expected or '')[:12]}"
        try:
            before = orjson.loads(self.revisions.tables.read(expected or ""))
        except (OSError, ValueError):
            return Refused(412, "conflict", words, revision=current, difference=None)
        changes = difference(before, document)
        return Refused(412, "conflict", words, revision=current, difference=changes)

    def _edit(self, body: bytes, by: str, expected: str | None) -> Published:
        if expected is None:
            words = "If-Match: the revision that the edit was made for is wanted"
            raise Refused(428, "if_match_wanted", words)
        current, document = self.revisions.current()
        if current != expected:
            raise Conflict
        edit: Edit = read_edit(body, document)
        if edit.problems:
            problems = [
                {"line": one.line, "key": one.key, "value": one.value, "allowed": one.allowed}
                for one in edit.problems
            ]
            words = "; ".join(str(problem) for problem in edit.problems[:3])
            raise Refused(422, "bad_table", words, problems=problems)
        if len(edit.reason) < REASON_MIN:
            words = f"reason: {REASON_MIN} to {REASON_MAX} characters are wanted"
            raise Refused(422, "bad_table", words)
        done = self.revisions.edit(edit, author=by, expected=expected)
        log.info("revision %s by %s: %s", done.revision[:12], by, edit.reason)
        return done

    def _revert(self, named: str, body: bytes, by: str, expected: str | None) -> Published:
        reason = _reason(body)
        try:
            revision = self.revisions.find(named)
        except LookupError as error:
            raise Refused(404, "unknown_revision", str(error)) from None
        done = self.revisions.revert(revision, author=by, reason=reason, expected=expected)
        log.warning("reverted to %s by %s: %s", revision[:12], by, reason)
        return done


def _who(request: Request) -> str:
    roles = request.headers.get("x-headworks-roles")
    if roles is not None and ROLE not in roles.split(","):
        raise Refused(403, "forbidden", f"the role {ROLE!r} is wanted")
    return request.headers.get("x-headworks-person", "local")


def _expected(request: Request) -> str | None:
    """The revision of If-Match, as an entity tag or bare."""
    told = request.headers.get("if-match")
    return told.strip().removeprefix("W/").strip('"') if told is not None else None


def _reason(body: bytes) -> str:
    try:
        told = orjson.loads(body)
    except ValueError:
        told = None
    reason = told.get("reason") if isinstance(told, dict) else None
    if not isinstance(reason, str) or not REASON_MIN <= len(reason.strip()) <= REASON_MAX:
        words = f"reason: {REASON_MIN} to {REASON_MAX} characters are wanted"
        raise Refused(400, "bad_parameter", words)
    return reason.strip()


def _answer(told: dict[str, Any], status: int, revision: str | None) -> Response:
    return JSONResponse(told, status, {"etag": f'"{revision}"'} if revision else None)


def _shown(rule: Any) -> Any:
    return shown_rule(rule) if isinstance(rule, dict) and "split" in rule else rule


def file_problems(checked: Checked, error: Owned | Clashing) -> Iterator[Problem]:
    """Each unit of a file that may not come into force, with its line and what both say."""
    if isinstance(error, Owned):
        unit = ("models", error.model, "rules", error.rule)
        words = f"{error}, which has {_said(error.ours)}"
        yield _problem(checked, unit, error.theirs, words)
        return
    for clash in error.clashes:
        words = f"was changed since the file was adopted, to {_said(clash.ours)}"
        yield _problem(checked, clash.unit, clash.theirs, words)


def _problem(checked: Checked, unit: tuple[str, ...], theirs: Any, words: str) -> Problem:
    key: Key = unit[:3] if len(unit) > 3 else unit
    if len(unit) > 3 and checked.settings is not None and unit[1] in checked.settings.models:
        names = [rule.name for rule in checked.settings.models[unit[1]].rules]
        key = (*key, names.index(unit[3])) if unit[3] in names else key
    line = checked.line_of(key)
    return Problem(checked.path.name, line, dotted(unit), _said(theirs), words)


def _said(told: Any) -> str:
    return "nothing" if told is None else orjson.dumps(_shown(told)).decode()
