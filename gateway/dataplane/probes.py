"""What orchestrators and clients ask before they send work; answered from memory, never recorded.

`/-/live` and `/-/ready` speak of this process only, never of upstreams. `/v2/health/*` are the
protocol's own: of one server behind a path they are its own answers, a second old at most; of
several, ready is 200 iff each model's stable version is.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from urllib.parse import quote

import orjson

from gateway.dataplane.backend import Backend
from gateway.dataplane.catalogue import server as describe
from gateway.dataplane.failures import UpstreamOverloaded
from gateway.dataplane.live import Live
from gateway.dataplane.remote import Remote, Server
from gateway.exchange import Headers, Reply
from gateway.routing.place import find_mount
from gateway.table import Model

ASK_AGAIN_S = 1.0
ASK_S = 1.0
HEALTH = ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/")
READY = "/v2/models/{}/ready"


class Probes:
    def __init__(self) -> None:
        self.draining = False
        self.journal_writable = True

    @staticmethod
    def concern(path: str) -> bool:
        """Whether `answer` has anything to say."""
        return path.startswith("/-/") or path.endswith(HEALTH)

    async def answer(self, path: str, live: Live | None, headers: Headers) -> Reply | None:
        """None: not a probe's path."""
        if path.startswith("/-/"):
            return self._own(path, live)
        if not path.endswith(HEALTH):
            return None
        host = next((value for name, value in headers if name == b"host"), b"").decode("latin-1")
        return await self._health(path, host.lower().rsplit(":", 1)[0], live)

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

    async def _health(self, path: str, host: str, live: Live | None) -> Reply | None:
        mount = None if live is None else find_mount(live.table, host, path)
        if live is None or mount is None or "v2" not in mount.models:
            return await self._gateway(path, live, []) if path in HEALTH else None
        rest, models = path[len(mount.path) :], list(mount.models["v2"].values())
        if rest not in HEALTH:
            return None
        if self.draining or len({model.stable.upstream for model in models}) > 1:
            return await self._gateway(rest, live, models)
        backend = live.backend(models[0], models[0].stable.name)
        if backend.remote is None:
            return await self._gateway(rest, live, models)
        reply = await self._ask(backend.remote, rest)
        return reply if reply is not None else _say(503, {"live": False, "ready": False})

    async def _gateway(self, rest: str, live: Live | None, models: list[Model]) -> Reply:
        if rest in HEALTH[2:]:
            return _say(200, describe())
        if rest == HEALTH[0]:
            return _say(200, {"live": True})
        ready = await self.models_ready(live, models)
        return _say(200 if ready else 503, {"ready": ready})

    async def models_ready(self, live: Live | None, models: list[Model]) -> bool:
        """Whether each model's stable version is; of all models where none is named."""
        if live is None or self.draining:
            return False
        named = models or [model for model in live.table.models.values() if model.protocol == "v2"]
        backends = [live.backend(model, model.stable.name) for model in named]
        return all(await asyncio.gather(*(self._ready(backend) for backend in backends)))

    async def versions_ready(
        self, live: Live, models: Mapping[str, Model]
    ) -> dict[tuple[str, str], bool]:
        """Of each version of these v2 models, by model and version, whether it can answer."""
        keys = [(model.name, version) for model in models.values() for version in model.versions]
        backends = [live.backend(models[model], version) for model, version in keys]
        asked = (self._ready(backend, READY.format(quote(backend.model.name, safe="")))
                 for backend in backends)  # fmt: skip
        return dict(zip(keys, await asyncio.gather(*asked)))

    async def _ready(self, backend: Backend, path: str = HEALTH[1]) -> bool:
        if backend.remote is None:
            return True
        reply = await self._ask(backend.remote, path)
        return reply is not None and reply.status == 200

    async def _ask(self, remote: Remote, path: str) -> Reply | None:
        """The upstream's own answer, a second old at most; None: it gives none. Of several
        endpoints a good answer speaks for all."""
        at, reply = remote.told.get(path, (-math.inf, None))
        if time.monotonic() - at < ASK_AGAIN_S:
            return reply
        asked = (_heard(remote, server, path) for server in remote.servers)
        replies = [reply for reply in await asyncio.gather(*asked) if reply is not None]
        reply = min(replies, key=lambda reply: reply.status != 200, default=None)
        remote.told[path] = (time.monotonic(), reply)
        return reply


async def _heard(remote: Remote, server: Server, path: str) -> Reply | None:
    try:
        return await remote.hear(server, path, ASK_S)
    except UpstreamOverloaded:  # too busy to be asked is not ill
        return _say(200, describe() if path in HEALTH[2:] else {"live": True, "ready": True})


def _say(status: int, document: object) -> Reply:
    return Reply(status, [(b"content-type", b"application/json")], orjson.dumps(document))
