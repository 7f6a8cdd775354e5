"""What orchestrators and clients ask before they send work; answered from memory, never recorded.

`/-/live` and `/-/ready` speak of this process only, never of upstreams. `/v2/health/*` and `/v2`
are the protocol's own: ready is 200 iff each model's stable version is.
"""

from __future__ import annotations

import asyncio
import time

import orjson

from gateway import __version__
from gateway.dataplane.backend import JSON, Backend
from gateway.dataplane.live import Live
from gateway.exchange import Reply

ASK_AGAIN_S = 1.0


class Probes:
    def __init__(self) -> None:
        self.draining = False
        self.journal_writable = True
        self._asked: dict[int, tuple[float, bool]] = {}

    async def answer(self, path: str, live: Live | None) -> Reply | None:
        """None: not a probe's path."""
        if path.startswith("/-/"):
            return self._own(path, live)
        if path == "/v2/health/live":
            return _say(200, {"live": True})
        if path == "/v2/health/ready":
            ready = await self._models_ready(live)
            return _say(200 if ready else 503, {"ready": ready})
        if path in ("/v2", "/v2/"):
            described = {"name": "headworks", "version": __version__, "extensions": []}
            return _say(200, described)
        return None

    def _own(self, path: str, live: Live | None) -> Reply | None:
        if path == "/-/live":
            return _say(200, {"live": True})
        if path != "/-/ready":
            return None
        why = {
            "table": live is not None,
            "journal": self.journal_writable,
            "draining": self.draining,
        }
        ready = live is not None and self.journal_writable and not self.draining
        return _say(200 if ready else 503, {"ready": ready, **why})

    async def _models_ready(self, live: Live | None) -> bool:
        if live is None or self.draining:
            return False
        models = live.table.models.values()
        backends = [live.backend(model, model.stable.name) for model in models]
        return all(await asyncio.gather(*(self._ready(backend) for backend in backends)))

    async def _ready(self, backend: Backend) -> bool:
        if (remote := backend.remote) is None:
            return True
        at, ready = self._asked.get(id(backend), (0.0, False))
        if time.monotonic() - at < ASK_AGAIN_S:
            return ready
        asked = (remote.ask(server, "/v2/health/ready", 1.0) for server in remote.servers)
        ready = any(await asyncio.gather(*asked))
        self._asked[id(backend)] = (time.monotonic(), ready)
        return ready


def _say(status: int, document: object) -> Reply:
    return Reply(status, JSON, orjson.dumps(document))
