"""The admin port's front door, in the supervisor: alive whatever else is dead.

It answers `/metrics`, `/-/live`, `/-/ready` and the status of the whole itself, passes reloads to
the governor and everything else to the analyst, each on its Unix socket. It checks Host and Origin
(a page of another site must not reach a loopback port through a browser), and people's tokens.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from pathlib import Path
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.clock import SystemClock
from gateway.declaration import MILLION
from gateway.settings import Settings
from gateway.stores import Stores
from gateway.supervisor import Supervisor
from gateway.table import TableStore
from gateway.telemetry import metrics
from gateway.trouble import Trouble

BODY_BYTES_MAX = 64 * 1024**2
OF_THE_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "content-length", "date",
                     "server")  # fmt: skip
LEDGER_FILE = re.compile(
    r"policy|(root|models/[A-Za-z0-9][A-Za-z0-9._-]*/\d{4}q[1-4])/"
    r"(checkpoint|witnessed|tile/(\d+|entries)(/x\d{3})*/\d{3}(\.p/\d{1,3})?)"
)
"""What /ledger/ hands out: checkpoints and tiles, not the order nor what still grows."""
MEASURE_S = 10.0
ROLLOUT_ACTS = ("approve", "pause", "resume", "abort", "promote")
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
log = logging.getLogger("headworks.front")


class Door:
    """Pure ASGI: refuses foreign hosts and origins, and, where there are people, strangers."""

    def __init__(self, app: ASGIApp, settings: Settings, tables: TableStore) -> None:
        self._app, self._tables = app, tables
        listening = settings.listen.of("admin").address.rpartition(":")[0].strip("[]")
        self._names = {*LOCAL_NAMES, listening}
        self._people = {
            person.token_sha256: (person.name, tuple(person.roles)) for person in settings.people
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._follow()
            if (refusal := self._refusal(Request(scope))) is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _follow(self) -> None:
        """People are those of the revision in force; if it cannot be read, the last known."""
        if not self._tables.changed():
            return
        try:
            document = self._tables.load(self._tables.current or "").document
        except (OSError, ValueError):
            log.exception("the people of the revision in force cannot be read")
        else:
            self._people = {
                person["token_sha256"]: (person["name"], tuple(person["roles"]))
                for person in document["people"]
            }

    def _refusal(self, request: Request) -> Response | None:
        host = request.url.hostname or ""
        if not self._people and host not in self._names:
            return say_error(421, "bad_host", f"host {host!r} is not served here")
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host')}":
            return say_error(403, "bad_origin", f"origin {origin!r} may not call this port")
        if self._people and request.url.path not in ("/-/live", "/-/ready"):
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            digest = hashlib.sha256(token.strip().encode()).hexdigest()
            person = self._people.get(digest)
            if scheme.lower() != "bearer" or person is None:
                return say_error(401, "unauthorised", "a person's bearer token is wanted")
            request.scope["headworks.person"], request.scope["headworks.roles"] = person
        return None


def say_error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": message, "code": code}, status)


class Front:
    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.state: Path = supervisor.state
        self.tables = TableStore(self.state)
        self.stores = Stores(
            self.state, supervisor.settings.disk, supervisor.metrics, SystemClock()
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._certificate: list[str] = []
        self._clients = {role: _client(self.state / "run" / f"{role}.sock") for role in
                         ("governor", "analyst")}  # fmt: skip

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/-/live", self.live, methods=["GET"]),
                Route("/-/ready", self.ready, methods=["GET"]),
                Route("/metrics", self.metrics, methods=["GET"]),
                Route("/api/v1/status", self.status, methods=["GET"]),
                Route("/api/v1/reload", self.govern, methods=["POST"]),
                Route("/api/v1/table", self.govern, methods=["PUT"]),
                Route("/api/v1/revisions/{revision}/revert", self.govern, methods=["POST"]),
                Route("/api/v1/subjects/erase", self.govern, methods=["POST"]),
                Route("/api/v1/subjects/find", self.govern, methods=["POST"]),
                Route("/api/v1/holds", self.govern, methods=["GET", "POST"]),
                Route("/api/v1/rollouts", self.govern, methods=["GET", "POST"]),
                Route("/api/v1/rollouts/{name}", self.govern, methods=["GET"]),
                Route("/api/v1/rollouts/{name}/history", self.govern, methods=["GET"]),
                *(
                    Route(f"/api/v1/rollouts/{{name}}/{act}", self.govern, methods=["POST"])
                    for act in ROLLOUT_ACTS
                ),
                Route("/ledger/{path:path}", self.ledger, methods=["GET", "HEAD"]),
                Route("/{path:path}", self.relay, methods=["GET", "POST", "PUT", "DELETE"]),
            ],
            middleware=[
                Middleware(Door, settings=self.supervisor.settings, tables=TableStore(self.state))
            ],
        )

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        workers = [child for child in self.supervisor.children if child.role.startswith("worker")]
        ready = self.tables.current is not None and any(child.running for child in workers)
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        body = metrics.expose(self.state / "metrics")
        return Response(body, media_type="text/plain; version=0.0.4")

    async def status(self, request: Request) -> Response:
        """Everything at one look: colour, and the words for it."""
        processes = self.supervisor.status()
        governor = await self._ask("governor", "/status")
        analyst = await self._ask("analyst", "/api/v1/analyst")
        words = [f"{role} is down" for role, state in processes.items() if not state["running"]]
        journals = (governor or {}).get("journals", {})
        words += [f"the file is not in force: {why}" for why in (governor or {}).get("refused", ())]
        words += (governor or {}).get("frozen", ())
        words += self._pressure(journals)
        words += (governor or {}).get("rollouts", [])
        words += self.stores.words()
        witnesses = (analyst or {}).get("witnesses", {})
        words += witnesses.get("words", [])
        red = [f"journal {lag['damage']}" for lag in journals.values() if lag["damage"]]
        red += (governor or {}).get("damaged_keys", [])
        if why := (governor or {}).get("damaged_holds"):
            red.append(f"nothing is erased or retired: {why}")
        red += witnesses.get("red", [])
        red += self.stores.refusing() + self._troubles() + self._certificate
        colour = "red" if red or self.tables.current is None else "yellow" if words else "green"
        return JSONResponse(
            {"state": colour, "words": red + words, "revision": self.tables.current,
             "listen": self.supervisor.listening, "processes": processes, "governor": governor,
             "analyst": analyst, "disk": self.stores.to_json()}
        )  # fmt: skip

    def judge_certificate(self, wrong: str | None) -> None:
        """What is wrong with the admin port's new files; it goes on with those of before."""
        self._certificate = [] if wrong is None else [f"admin port: {wrong}"]

    def _troubles(self) -> list[str]:
        """What processes say of themselves: a worker always, others until they run steadily."""
        told = ((child.role, Trouble(self.state, child.role).read())
                for child in self.supervisor.children
                if child.role.startswith("worker") or not child.steady)  # fmt: skip
        return [f"{role}: {words}" for role, words in told if words is not None]

    def _pressure(self, journals: dict[str, Any]) -> list[str]:
        """What the journals take of their budget, once it is worth a word."""
        settings = self.supervisor.settings
        at_most = settings.disk.journal.at_most
        taken = sum(lag["bytes"] for lag in journals.values())
        if taken * MILLION < at_most * settings.journal.warn:
            return []
        return [f"journals take {taken / at_most:.0%} of their disk budget"]

    async def _ask(self, role: str, path: str) -> dict[str, Any] | None:
        try:
            answer = await self._clients[role].get(path)
            told: dict[str, Any] = answer.raise_for_status().json()
        except (httpx2.HTTPError, ValueError):
            return None
        return told

    async def govern(self, request: Request) -> Response:
        return await self._pass(request, "governor", request.url.path.removeprefix("/api/v1"))

    async def ledger(self, request: Request) -> Response:
        """The ledger's static files, as any web server would give them (c2sp.org/tlog-tiles)."""
        path = request.path_params["path"]
        if not LEDGER_FILE.fullmatch(path):
            return say_error(404, "unknown_path", f"{path[:200]!r} is no file of a log")
        file = self.state / "ledger" / path
        if not file.is_file():
            return say_error(404, "unknown_path", f"{path[:200]!r} is not there")
        if "/tile/" in path:
            kept = {"cache-control": "public, max-age=31536000, immutable"}
            return FileResponse(file, media_type="application/octet-stream", headers=kept)
        return FileResponse(file, media_type="text/plain", headers={"cache-control": "no-store"})

    async def watch(self) -> None:
        """Measure the stores as long as the gateway lives."""
        while True:
            try:
                await asyncio.to_thread(self.stores.look, time.monotonic())
            except OSError:
                log.exception("the stores cannot be measured")
            await asyncio.sleep(MEASURE_S)

    def hang_up(self) -> None:
        """SIGHUP: reload; the log says what came of it."""
        task = asyncio.get_running_loop().create_task(self._reload_from_signal())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload_from_signal(self) -> None:
        try:
            told = await self._clients["governor"].post("/reload")
        except httpx2.HTTPError as error:
            log.error("reload: the governor is down: %s", error)
        else:
            log.info("reload: %s", told.text)

    async def relay(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("latin-1")
        path += f"?{request.url.query}" if request.url.query else ""
        return await self._pass(request, "analyst", path)

    async def _pass(self, request: Request, role: str, path: str) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                return say_error(413, "request_too_large", f"more than {BODY_BYTES_MAX} bytes")
        passed = {name: value for name in ("accept", "content-type", "if-match")
                  if (value := request.headers.get(name))}  # fmt: skip
        if (person := request.scope.get("headworks.person")) is not None:
            passed["x-headworks-person"] = person  # who, by the token; never by the body
            passed["x-headworks-roles"] = ",".join(request.scope["headworks.roles"])
        try:
            answer = await self._clients[role].request(
                request.method, path, content=body, headers=passed
            )
        except httpx2.HTTPError:
            return say_error(503, f"{role}_down", f"the {role} is down; answers go on without it")
        kept = {
            name: value for name, value in answer.headers.items() if name not in OF_THE_CONNECTION
        }
        kept.setdefault("x-content-type-options", "nosniff")
        return Response(answer.content, answer.status_code, kept)


def _client(path: Path) -> httpx2.AsyncClient:
    transport = httpx2.AsyncHTTPTransport(uds=str(path))
    return httpx2.AsyncClient(transport=transport, base_url="http://headworks", timeout=30)
