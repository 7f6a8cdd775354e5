"""The analyst's side of the admin port: `/api/v1/…` and the live page at `/`.

Every page has its JSON twin here. Errors have one shape: `{"error": words, "code": code}`, and name
the parameter and the value.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gateway.artifacts import Artifacts
from gateway.catalog import queries
from gateway.catalog.store import Catalog
from gateway.clock import SystemClock, isoformat
from gateway.console import openapi
from gateway.console.backtests import backtest, read_asked
from gateway.console.decision import parts_of, show, split_id
from gateway.console.export import read_export, write_export
from gateway.console.governed import Governed, check_purpose
from gateway.console.pages import Pages
from gateway.console.performance import SINCE_DAYS, performed
from gateway.console.reproduce import reproduce
from gateway.console.shadow import reported
from gateway.console.tables import Tables
from gateway.console.tempered import Tempered
from gateway.console.windows import window
from gateway.exchange import exchange_id
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import read_committed
from gateway.monitor.alerts import ACKNOWLEDGED, MUTED
from gateway.revision.revisions import Revisions
from gateway.table import Model, TableStore

_AGO = re.compile(r"^(\d+)(s|m|h|d)$")
MUTED_DAYS_MAX = 30
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def answer(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


def refuse(status: int, code: str, words: str) -> Response:
    return answer({"error": words, "code": code}, status)


def read_time(name: str, text: str, now: datetime) -> int:
    """`2026-11-23T10:00:00Z` or `15m` ago, in nanoseconds. ValueError names parameter and value."""
    try:
        if match := _AGO.match(text):
            moment = now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        else:
            moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1e9)
    except (ValueError, OverflowError):
        words = f"{name}={text[:40]!r}: an ISO time or an age as 15m is wanted"
        raise ValueError(words) from None


def read_filters(parameters: Any, now: datetime) -> queries.Filters:
    known = {"model", "version", "arm", "rule", "outcome", "status", "since", "until", "window",
             "limit"}  # fmt: skip
    for name in parameters:
        if name not in known:
            raise ValueError(f"{name}: unknown; known: {', '.join(sorted(known))}")
    found: dict[str, Any] = {
        name: parameters[name]
        for name in ("model", "version", "arm", "rule", "outcome", "window")
        if name in parameters
    }
    for name in ("status", "limit"):
        if name in parameters:
            if not parameters[name].isdigit():
                raise ValueError(f"{name}={parameters[name]!r}: a whole number is wanted")
            found[name] = int(parameters[name])
    for name in ("since", "until"):
        if name in parameters:
            found[name] = read_time(name, parameters[name], now)
    return queries.Filters(**found)


def read_since(parameters: Any, now: datetime) -> int:
    """Nanoseconds; without the parameter 90 days ago. ValueError names parameter and value."""
    for name in parameters:
        if name != "since":
            raise ValueError(f"{name}: unknown; known: since")
    return read_time("since", parameters.get("since", f"{SINCE_DAYS}d"), now)


def read_alert_filters(parameters: Any) -> tuple[str | None, bool, int]:
    """Model, whether those that are over too, limit. ValueError names parameter and value."""
    known = ("model", "resolved", "limit")
    for name in parameters:
        if name not in known:
            raise ValueError(f"{name}: unknown; known: {', '.join(known)}")
    resolved, limit = parameters.get("resolved", "false"), parameters.get("limit", "100")
    if resolved not in ("true", "false"):
        raise ValueError(f"resolved={resolved[:40]!r}: true or false is wanted")
    if not limit.isdigit():
        raise ValueError(f"limit={limit[:40]!r}: a whole number is wanted")
    return parameters.get("model"), resolved == "true", int(limit)


def read_word(body: bytes, kind: str, now: datetime) -> dict[str, Any]:
    """`alert`, and to mute it `for` (as 2h; 0s ends it) and `reason`. ValueError names them."""
    try:
        told = orjson.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("alert"), str):
        raise ValueError("a JSON object with the `alert` is wanted")
    if kind == ACKNOWLEDGED:
        return {"alert": told["alert"]}
    span, reason = str(told.get("for")), told.get("reason")
    match = _AGO.match(span)
    most = timedelta(days=MUTED_DAYS_MAX)
    if not match or len(match[1]) > 9 or timedelta(**{_UNITS[match[2]]: int(match[1])}) > most:
        raise ValueError(f"for={span[:40]!r}: a span as 2h is wanted, {MUTED_DAYS_MAX}d at most")
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= 500:
        raise ValueError(f"reason={str(reason)[:40]!r}: 1 to 500 characters are wanted")
    until = now + timedelta(**{_UNITS[match[2]]: int(match[1])})
    return {"alert": told["alert"], "until": int(until.timestamp() * 1e9), "reason": reason.strip()}


def read_purpose(body: bytes) -> tuple[str, bool]:
    """The purpose, and whether the sealed parts are wanted too. ValueError names what was sent."""
    try:
        told = orjson.loads(body)
    except ValueError:
        told = None
    purpose = told.get("purpose") if isinstance(told, dict) else None
    parts = told.get("parts", False) if isinstance(told, dict) else False
    if not isinstance(parts, bool):
        raise ValueError(f"parts={str(parts)[:40]!r}: true or false is wanted")
    return check_purpose(purpose), parts


class Api:
    def __init__(
        self,
        catalog: Callable[[], Catalog],
        tables: TableStore,
        bodies: BodyReader,
        state: Path,
        witnesses: Callable[[], dict[str, Any]],
        rebuild: Callable[[], Awaitable[int]],
    ) -> None:
        self.catalog, self.tables, self.bodies, self.state = catalog, tables, bodies, state
        self._witnesses, self._rebuild = witnesses, rebuild
        self.governor = Governed(state / "run" / "governor.sock")
        self._backtesting = asyncio.Lock()
        self.figures = Tempered(self.asked, SystemClock())

    async def decisions(self, request: Request) -> Response:
        try:
            filters = read_filters(request.query_params, datetime.now(UTC))  # noqa: TID251
        except ValueError as error:
            return refuse(400, "bad_parameter", str(error))
        rows = await asyncio.to_thread(self.asked, queries.decisions, filters)
        return answer({"decisions": rows})

    async def decision(self, request: Request) -> Response:
        text = request.path_params["id"]
        try:
            document = await asyncio.to_thread(
                self.asked, show, self.tables, self.bodies, self.state, text
            )
        except ValueError as error:
            return refuse(400, "bad_parameter", str(error))
        if document is None:
            return refuse(404, "unknown_decision", f"no decision {text!r} is in the catalog")
        return answer(document)

    async def reveal(self, request: Request) -> Response:
        """What people sent, once a leaf says durably who reads it and why."""
        try:
            purpose, parts = read_purpose(await request.body())
        except ValueError as error:
            return refuse(400, "bad_parameter", str(error))
        shown = await self.revealed(request, purpose)
        if not parts or shown.status_code != 200:
            return shown
        found = await asyncio.to_thread(
            self.asked, parts_of, self.bodies, self.state, request.path_params["id"]
        )
        told = base64.b64encode(found).decode() if found is not None else None
        return answer(orjson.loads(shown.body) | {"parts": told})

    async def revealed(self, request: Request, purpose: str) -> Response:
        found = await self.decision(request)
        if found.status_code != 200:
            return found
        person = request.headers.get("x-headworks-person", "local")
        record = {"decision": request.path_params["id"], "by": person, "purpose": purpose}
        try:
            await self.governor.tell("reveal", record)
        except OSError as error:
            return refuse(503, "governor_down", f"reading cannot be recorded now: {error}")
        document = await asyncio.to_thread(
            self.asked, show, self.tables, self.bodies, self.state, request.path_params["id"], True
        )
        return answer(document)

    async def reproduce(self, request: Request) -> Response:
        """The same artifact on the same input, once a leaf says that a machine reads it."""
        text = request.path_params["id"]
        by = request.headers.get("x-headworks-person", "local")
        try:
            identity, _ = split_id(text)
            found = await asyncio.to_thread(self.asked, queries.exchange, identity)
        except ValueError as error:
            return refuse(400, "bad_parameter", str(error))
        if found is None:
            return refuse(404, "unknown_decision", f"no decision {text!r} is in the catalog")
        record = {"job": "reproduce", "decision": identity, "by": by}
        try:
            leaf = await self.governor.tell("reading", record)
        except OSError as error:
            return refuse(503, "governor_down", f"reading cannot be recorded now: {error}")
        document = await asyncio.to_thread(
            reproduce, found, self.tables, self.bodies, self.state, identity
        )
        return answer(document | {"reading": leaf})

    async def models(self, request: Request) -> Response:
        return answer({"models": await asyncio.to_thread(self._models)})

    def _models(self) -> list[dict[str, Any]]:
        revision = self.tables.current
        if revision is None:
            return []
        found = []
        for name, model in self.tables.load(revision).models.items():
            versions = {
                version.name: {
                    "upstream": version.upstream,
                    "artifact": version.artifact,
                    "summary": version.card.summary if version.card else None,
                    "metrics": version.card.metrics if version.card else None,
                }
                for version in model.versions.values()
            }
            rules = [
                {"name": rule.name, "stable": rule.stable,
                 "shadow": {copied.version: copied.share for copied in rule.shadows},
                 "canary": {item.version: item.high - item.low for item in rule.intervals
                            if item.arm == "canary"}}
                for rule in model.rules
            ]  # fmt: skip
            found.append(
                {"name": name, "revision": revision, "protocol": model.protocol,
                 "durability": model.durability, "versions": versions, "rules": rules}
            )  # fmt: skip
        return found

    async def monitor(self, request: Request) -> Response:
        name = request.path_params["model"]
        known = [model["name"] for model in await asyncio.to_thread(self._models)]
        if name not in known:
            return refuse(404, "unknown_model", f"model {name!r} is none of {', '.join(known)}")
        return answer(await asyncio.to_thread(self.monitored, name))

    def monitored(self, name: str) -> dict[str, Any]:
        agreement, _ = self.figures.asked(queries.agreement, name)
        counts, at = self.figures.asked(queries.counts, name)
        return {
            "model": name,
            "counted_at": isoformat(at),
            "counts": counts,
            "agreement": agreement,
            "series": self.asked(queries.monitor, name),
            "pairs": self.asked(queries.pairs, name),
        }

    async def window(self, request: Request) -> Response:
        name = request.path_params["id"]
        found = await asyncio.to_thread(self.asked, window, name)
        if found is None:
            return refuse(404, "unknown_window", f"no window {name[:300]!r} has closed")
        return answer(found)

    async def backtest(self, request: Request) -> Response:
        """What other settings would have said, once a leaf says that a machine reads the past."""
        name = request.path_params["model"]
        try:
            await asyncio.to_thread(self._model, name)
            since, changes = read_asked(await request.body())
            moment = read_time("since", since or "7d", datetime.now(UTC))  # noqa: TID251
        except LookupError as error:
            return refuse(404, "unknown_model", str(error.args[0]))
        except ValueError as error:
            return refuse(400, "bad_parameter", str(error))
        if self._backtesting.locked():
            return refuse(409, "backtest_running", "another backtest is under way")
        by = request.headers.get("x-headworks-person", "local")
        try:
            leaf = await self.governor.tell("reading", {"job": "backtest", "model": name, "by": by})
        except OSError as error:
            return refuse(503, "governor_down", f"reading cannot be recorded now: {error}")
        async with self._backtesting:
            told = await asyncio.to_thread(
                self.asked, backtest, self.state, self.tables, self.bodies, name, moment, changes
            )
        return answer(told | {"reading": leaf})

    async def alerts(self, request: Request) -> Response:
        try:
            model, resolved, limit = read_alert_filters(request.query_params)
        except ValueError as error:
            return refuse(400, "bad_parameter", str(error))
        try:
            if model is not None and all(one["model"] != model for one in self._alerts().values()):
                await asyncio.to_thread(self._model, model)
        except LookupError as error:
            return refuse(404, "unknown_model", str(error.args[0]))
        happened = await asyncio.to_thread(self.asked, queries.happenings)
        found = [
            alert | {"last": happened[key]}
            for key, alert in self._alerts().items()
            if key in happened
            and model in (None, alert["model"])
            and (resolved or alert["state"] != "resolved")
        ]
        found.sort(key=lambda one: (one["state"] == "resolved", -one["updated_at"]))
        return answer({"alerts": found[:limit]})

    def _alerts(self) -> dict[str, dict[str, Any]]:
        """As they are by the leaf that the catalog has reached."""
        told: dict[str, Any] = self.catalog().state.get("alerts", {}).get("alerts", {})
        return told

    async def acknowledge(self, request: Request) -> Response:
        return await self._word(request, ACKNOWLEDGED)

    async def mute(self, request: Request) -> Response:
        return await self._word(request, MUTED)

    async def _word(self, request: Request, kind: str) -> Response:
        """A leaf of root says what a person said; the alert changes when the analyst reads it."""
        now = datetime.now(UTC)  # noqa: TID251
        try:
            told = read_word(await request.body(), kind, now)
        except ValueError as error:
            return refuse(400, "bad_parameter", str(error))
        if self._alerts().get(told["alert"], {}).get("state", "resolved") == "resolved":
            return refuse(404, "unknown_alert", f"no alert {told['alert'][:80]!r} is open")
        told["by"] = request.headers.get("x-headworks-person", "local")
        try:
            leaf = await self.governor.tell(kind, told)
        except OSError as error:
            return refuse(503, "governor_down", f"it cannot be recorded now: {error}")
        return answer({"leaf": leaf})

    async def performance(self, request: Request) -> Response:
        """By the labels that came, and estimated without them."""
        return await self._since(
            request, lambda model, since: self.asked(performed, self.tables, model, since)
        )

    async def shadows(self, request: Request) -> Response:
        """How shadows' answers compare with those given."""

        def tell(model: Model, since: int) -> Any:
            pending = self.catalog().state.get("segments", {})
            return self.asked(reported, model, Artifacts(self.state), pending, since)

        return await self._since(request, tell)

    async def _since(self, request: Request, tell: Callable[[Model, int], Any]) -> Response:
        """What `tell` says of the path's model since the time that is asked for."""
        try:
            model = await asyncio.to_thread(self._model, request.path_params["model"])
            since = read_since(request.query_params, datetime.now(UTC))  # noqa: TID251
        except LookupError as error:
            return refuse(404, "unknown_model", str(error.args[0]))
        except ValueError as error:
            return refuse(400, "bad_parameter", str(error))
        return answer(await asyncio.to_thread(tell, model, since))

    def _model(self, name: str) -> Model:
        revision = self.tables.current
        models = self.tables.load(revision).models if revision is not None else {}
        if name not in models:
            raise LookupError(f"model {name!r} is none of {', '.join(models)}")
        return models[name]

    def asked(self, query: Callable[..., Any], *arguments: Any) -> Any:
        """A query's answer, through a cursor of its own that is closed after it."""
        with closing(self.catalog().cursor()) as cursor:
            return query(cursor, *arguments)

    async def analyst(self, request: Request) -> Response:
        committed = read_committed(self.state / "ledger")
        reached = self.catalog().reached + 1
        return answer({"reached": reached, "leaves": committed, "behind": committed - reached,
                       "witnesses": self._witnesses()})  # fmt: skip

    async def rebuild(self, request: Request) -> Response:
        """Make the catalog again from the ledger; answers when the new one is in use."""
        try:
            return answer({"leaves": await self._rebuild()})
        except RuntimeError as error:
            return refuse(409, "busy", str(error))

    async def export(self, request: Request) -> Response:
        """A model's decisions of a day as a file on this host; a leaf says so first."""
        try:
            asked = read_export(await request.body(), await asyncio.to_thread(self._models))
        except ValueError as error:
            return refuse(400, "bad_parameter", str(error))
        by = request.headers.get("x-headworks-person", "local")
        identity = exchange_id(time.time_ns())
        record = {"id": identity, "model": asked["model"], "days": [asked["day"]], "by": by,
                  "values": asked["values"], "purpose": asked["purpose"]}  # fmt: skip
        path = Path(asked["folder"]) / f"{asked['model']}-{asked['day']}-{identity[:13]}.parquet"
        try:
            await self.governor.tell("export", record)
            told = await asyncio.to_thread(
                write_export, self.catalog(), self.tables, self.bodies, self.state, path,
                asked["model"], asked["day"], asked["values"],
            )  # fmt: skip
        except OSError as error:
            return refuse(503, "export_failed", str(error))
        return answer(told | {"id": identity})

    async def openapi(self, request: Request) -> Response:
        return answer(openapi.document())


def make_app(
    catalog: Callable[[], Catalog],
    tables: TableStore,
    bodies: BodyReader,
    state: Path,
    witnesses: Callable[[], dict[str, Any]],
    rebuild: Callable[[], Awaitable[int]],
) -> Starlette:
    """`catalog`: the one in use; `witnesses`: how they stand; `rebuild`: makes the catalog again
    and says how many leaves it holds (RuntimeError: one is under way)."""
    api = Api(catalog, tables, bodies, state, witnesses, rebuild)
    clock = SystemClock()
    tables_told = Tables(Revisions(tables, Artifacts(state), clock.wall), clock, api)
    pages = Pages(api, tables_told)
    return Starlette(
        routes=[
            Route("/", pages.home),
            Route("/decisions/{id:path}", pages.decision, methods=["GET"]),
            Route("/decisions/{id:path}", pages.reveal, methods=["POST"]),
            Route("/models/{model}", pages.model),
            Route("/table", pages.table),
            Route("/table/{revision}", pages.table),
            Route("/shadow/{model}", pages.shadow),
            Route("/rollouts", pages.rollouts),
            Route("/rollouts/{name}", pages.rollout),
            Mount("/static", StaticFiles(packages=[("gateway.console", "static")])),
            Route("/api/openapi.json", api.openapi),
            Route("/api/v1/analyst", api.analyst),
            Route("/api/v1/decisions", api.decisions),
            Route("/api/v1/decisions/{id:path}/reveal", api.reveal, methods=["POST"]),
            Route("/api/v1/decisions/{id:path}/reproduce", api.reproduce, methods=["POST"]),
            Route("/api/v1/decisions/{id:path}", api.decision),
            Route("/api/v1/catalog/rebuild", api.rebuild, methods=["POST"]),
            Route("/api/v1/exports", api.export, methods=["POST"]),
            *tables_told.routes(),
            Route("/api/v1/models", api.models),
            Route("/api/v1/shadow/{model}", api.shadows),
            Route("/api/v1/alerts", api.alerts),
            Route("/api/v1/alerts/acknowledge", api.acknowledge, methods=["POST"]),
            Route("/api/v1/alerts/mute", api.mute, methods=["POST"]),
            Route("/api/v1/windows/{id:path}", api.window),
            Route("/api/v1/monitor/{model}", api.monitor),
            Route("/api/v1/monitor/{model}/performance", api.performance),
            Route("/api/v1/monitor/{model}/backtest", api.backtest, methods=["POST"]),
        ]
    )
