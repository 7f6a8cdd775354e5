"""The governor: seals journals, publishes tables. Small and hard to kill.

It serves a control API on a Unix socket (`state/run/governor.sock`) that only the supervisor's
front door calls. Its death delays nothing but what it does: workers answer on, journals grow.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.artifacts import Artifacts
from gateway.asgi import Server
from gateway.check import check
from gateway.clock import SystemClock
from gateway.custodian import custody_routes
from gateway.disk import Occupied
from gateway.ledger.keyfiles import damaged_slots
from gateway.priority import step_back
from gateway.revision.freeze import sentences
from gateway.revision.publisher import Publisher, file_problems
from gateway.revision.revisions import Clashing, Owned, Revisions
from gateway.rollout.controller import Rollouts
from gateway.rollout.routes import rollout_routes
from gateway.seal.custody import Custody
from gateway.seal.sealer import Sealer
from gateway.settings import RESTART_KEYS, LedgerSettings
from gateway.table import Conflict, TableStore
from gateway.telemetry.metrics import Metrics

PAUSE_S = 0.1
"""Between two turns, unless there is more to seal or somebody waits. A turn has some six flushes of
the disk on which the workers' answers wait too, and costs as much for one record as for a hundred.
A rollout is looked at after each turn: ten times within the second that it may take to narrow."""
LOOK_S = 0.02
DAMAGED_TOLD_MAX = 10
log = logging.getLogger("headworks.governor")


class Governor:
    def __init__(
        self,
        config: Path,
        overrides: dict[str, str],
        state: Path,
        keys: Path,
        clock: SystemClock,
        started: dict[str, Any],
        ledger: LedgerSettings,
    ) -> None:
        """`started`: the settings of the start that only a restart can change."""
        self.config, self.overrides, self.state, self.keys = config, overrides, state, keys
        self.clock, self.started = clock, started
        self.metrics = Metrics("governor", state / "metrics")
        self.metrics.gather()
        self.tables = TableStore(state)
        self.revisions = Revisions(self.tables, Artifacts(state), clock.wall)
        self.sealer = Sealer(state, keys, self.clock, self.metrics, ledger)
        self.revisions.alerts = lambda: self.sealer.standing.alerts
        self.custody = Custody(self.sealer)
        self.rollouts = Rollouts(state, keys, self.sealer, self.revisions, self.clock, self.metrics)
        self.refused: list[str] = []  # what keeps the file as it is out of force
        self.damaged_keys: list[str] = []
        self.stopping = False
        self._looked: tuple[object, str | None] = (None, None)
        self._publishing = asyncio.Lock()

    async def run(self, restarts: int) -> int:
        """After a crash (`restarts` > 0) a file that changed since is nobody's reload."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self.sealer.notary.begin(restarts)
        await asyncio.to_thread(self.custody.resume)
        if not restarts or self.tables.current is None:
            await self._publish_at_start()
        await asyncio.to_thread(self.rollouts.resume)
        run = self.state / "run"
        run.mkdir(exist_ok=True)
        path = run / "governor.sock"
        path.unlink(missing_ok=True)
        config = uvicorn.Config(
            self._app(), uds=str(path), log_config=None, access_log=False, lifespan="off"
        )
        self.server = Server(config)
        serving = loop.create_task(self.server.serve())
        await asyncio.to_thread(step_back, "governor")
        looking = loop.create_task(asyncio.to_thread(self._look_at_keys))
        try:
            await self._seal_until_stopped()
        finally:
            self.server.should_exit = self.stopping = True
            await asyncio.gather(serving, looking)
            if not self.sealer.broken:
                self.rollouts.close()
            self.sealer.close()
        return 0

    async def _publish_at_start(self) -> None:
        """Whatever goes wrong here must not keep journals from being sealed."""
        try:
            told = await self.publish("start", "the file at the start")
        except Exception:
            log.exception("the file at the start is not published")
        else:
            for problem in told["problems"]:
                log.critical("the file at the start is not published: %s", problem)

    def _stop(self) -> None:
        self.stopping = True

    async def _seal_until_stopped(self) -> None:
        """Seal; once told to stop, until nothing more comes: workers have ended by then."""
        while True:
            stopping = self.stopping
            written = await asyncio.to_thread(self._turn)
            self._tell_numbers()
            if stopping and not written:
                return
            if not (written and self.sealer.is_behind):
                await self._pause()

    async def _pause(self) -> None:
        for _ in range(int(PAUSE_S / LOOK_S)):
            if self.sealer.is_asked or self.stopping:
                return
            await asyncio.sleep(LOOK_S)

    def _look_at_keys(self) -> None:
        """Once, at the start and beside the work: slots that rotted are told before one is used."""
        for found in damaged_slots(self.keys):
            for words in found:
                log.critical(words)
            self.damaged_keys += found[: DAMAGED_TOLD_MAX - len(self.damaged_keys)]
            if self.stopping:
                return

    def _turn(self) -> int:
        self.custody.retire()
        written = self.sealer.turn()
        try:
            self.rollouts.turn()
            self._retreat()
        except OSError:
            raise
        except Exception:  # whatever is wrong with a rollout or a rule, records are sealed
            log.exception("rollouts and alerts had no turn")
        return written

    def _retreat(self) -> None:
        """Shares that an alert takes back; looked at when alerts or the table changed."""
        looked = (self.sealer.standing.alerts, self.tables.current)
        if looked[1] is None or (looked[0] is self._looked[0] and looked[1] == self._looked[1]):
            return
        for done in self.revisions.retreat():
            log.warning("revision %s by an alert", done.revision[:12])
        self._looked = (looked[0], self.tables.current)

    def _tell_numbers(self) -> None:
        for source, lag in self.sealer.lag().items():
            consumer = f"seal:{source.split('.')[0]}"
            self.metrics.set("headworks_lag_bytes", lag["bytes"], consumer)
            if lag["marked_seconds_ago"] is not None:
                self.metrics.set("headworks_lag_seconds", lag["marked_seconds_ago"], consumer)
        self.metrics.tell()

    async def publish(self, author: str, reason: str) -> dict[str, Any]:
        """Bring the file into force if it is right and new: what happened, in words."""
        async with self._publishing:
            told = await asyncio.to_thread(self._publish, author, reason)
        self.refused = told["problems"]
        self.metrics.set("headworks_file_refused", bool(self.refused))
        return told

    def _publish(self, author: str, reason: str) -> dict[str, Any]:
        checked = check(self.config, self.overrides)
        current = self.tables.current
        told: dict[str, Any] = {
            "changed": False,
            "revision": current,
            "problems": [str(problem) for problem in checked.problems],
            "restart": [],
        }
        if checked.settings is None:
            return told
        now = checked.settings.model_dump(mode="json", include=set(RESTART_KEYS))
        told["restart"] = [key for key in RESTART_KEYS if now[key] != self.started[key]]
        try:
            done = self.revisions.adopt(checked, author=author, reason=reason)
        except (Owned, Clashing) as error:
            told["problems"] = [str(problem) for problem in file_problems(checked, error)]
            return told
        except ValueError as error:
            told["problems"] = [f"{self.config.name} and what was edited since: {error}"]
            return told
        except (Conflict, Occupied) as error:
            told["problems"] = [f"somebody else is publishing: {error}"]
            return told
        told |= {"revision": done.revision, "changed": done.changed}
        if done.changed:
            log.info("revision %s by %s: %s", done.revision[:12], author, reason)
        return told

    def _frozen(self) -> list[str]:
        alerts = self.sealer.standing.alerts
        if not alerts or self.tables.current is None:
            return []
        return sentences(self.revisions.current()[1], alerts)

    def _app(self) -> Starlette:
        async def reload(request: Request) -> JSONResponse:
            author = request.headers.get("x-headworks-person", "local")
            told = await self.publish(author, "reload")
            return JSONResponse(told, 422 if told["problems"] else 200)

        async def status(request: Request) -> JSONResponse:
            return JSONResponse(
                {"leaves": self.sealer.ledger.number, "journals": self.sealer.lag(),
                 "ledger": self.sealer.notary.status(), "revision": self.tables.current,
                 "refused": self.refused, "rollouts": self.rollouts.words(),
                 "frozen": self._frozen(), "damaged_keys": self.damaged_keys,
                 "damaged_holds": self.custody.holds.damage}
            )  # fmt: skip

        async def tell(request: Request) -> JSONResponse:
            """A leaf that another process of ours wants durable before it goes on."""
            told = orjson.loads(await request.body())
            number = await asyncio.wrap_future(self.sealer.tell(told["kind"], told["record"]))
            return JSONResponse({"leaf": number})

        return Starlette(
            routes=[
                *custody_routes(self.custody),
                *Publisher(self.revisions, self._publishing).routes(),
                *rollout_routes(self.rollouts),
                Route("/reload", reload, methods=["POST"]),
                Route("/status", status, methods=["GET"]),
                Route("/tell", tell, methods=["POST"]),
            ]
        )
