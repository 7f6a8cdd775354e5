"""uvicorn without its signal handlers: each process of the tree has its own way to end.

It listens with TLS where it is given PEM files, and listens anew when they change: connections that
are open keep the certificate they began with, new ones see the new one. The socket stays the same,
so that none is refused meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import uvicorn

from gateway.tls import Watched, server_context

LOOK_S = 1.0
HANDSHAKE_S = 10.0
log = logging.getLogger("headworks.listen")


class Server(uvicorn.Server):
    """OSError where `tls` (cert, key, client_ca) names files that do not fit. `refused` is told
    what is wrong with new ones, once for each wrong, and None when they are right again."""

    def __init__(
        self, config: uvicorn.Config, tls: Mapping[str, str | None] | None = None,
        refused: Callable[[str | None], None] = lambda words: None,
    ) -> None:  # fmt: skip
        super().__init__(config)
        self._files, self._refused = tls, refused
        self._wrong: str | None = None
        if not config.loaded:
            config.load()
        if tls is not None:
            self._watched = Watched(tls.values())
            config.ssl = server_context(tls)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._sockets = [listening.dup() for listening in sockets or []]
        await super().startup(sockets)
        if self._files is not None:
            await self._listen_anew(self._files)  # uvicorn lets a handshake last for a minute

    async def on_tick(self, counter: int) -> bool:
        if self._files is not None and counter % int(LOOK_S * 10) == 0 and self._watched.changed():
            await self._listen_anew(self._files)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self._sockets:
            listening.close()
        await super().shutdown(sockets)

    async def _listen_anew(self, files: Mapping[str, str | None]) -> None:
        """If the files do not fit each other, yet, the old certificate goes on being shown."""
        try:
            context = server_context(files)
        except OSError as error:
            self._watched.forget()
            self._judge(f"the new certificate is not taken: {error}")
            return
        self._judge(None)
        before = self.servers
        self.servers = [await self._listen(listening, context) for listening in self._sockets]
        for server in before:
            server.close()
        log.info("listening with the certificate of %s", files["cert"])

    def _judge(self, wrong: str | None) -> None:
        """We look each second; who is told, and the log, want to hear of changes only."""
        if wrong == self._wrong:
            return
        self._wrong = wrong
        if wrong is not None:
            log.error(wrong)
        self._refused(wrong)

    async def _listen(
        self, listening: socket.socket, context: ssl.SSLContext
    ) -> asyncio.base_events.Server:
        config = self.config

        def make() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        loop = asyncio.get_running_loop()
        return await loop.create_server(
            make,
            sock=listening.dup(),
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S,
            backlog=config.backlog,
        )
