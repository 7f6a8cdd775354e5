"""The daemon: c2sp.org/tlog-witness over HTTP/1.1, one process, no client of anything.

    POST /add-checkpoint              the protocol
    GET  /<SHA-256 of origin>/checkpoint    the last cosigned checkpoint, for monitors
    GET  /  and  GET /metrics         what has been seen, alarms first

Whoever can reach the port may ask: a checkpoint is believed for its signature, not for its sender.
So everything a stranger can make grow has a bound: bodies, heads, times, connections, submissions
under way, logs, alarms; what goes beyond is refused and counted.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.asgi import Server
from gateway.clock import Clock
from gateway.ledger import note
from gateway.ledger.note import Malformed, Note, Signature
from gateway.witness.page import NANO, Seen, metrics, page
from gateway.witness.state import Alarm, Remembered, WitnessState, origin_hash
from gateway.witness.submission import BODY_BYTES_MAX, Submission
from gateway.witness.trust import Trust
from gateway.witness.verdict import Consistent, Refused, Verdict, judge, origin_of

HEAD_BYTES_MAX = 16 * 1024
REQUEST_SECONDS_MAX = 10.0
KEEP_ALIVE_S = 75
CONNECTIONS_MAX = 128
UNDER_WAY_MAX = 32
DRAIN_S = 10
EXIT_ALARM = 1
EXIT_STATE = 74
TEXT = "text/plain; charset=utf-8"
SIZE = "text/x.tlog.size"
Answer = tuple[int, str, bytes]
"""Status, content type, body."""
log = logging.getLogger("headworks.witness")


def _say(status: int, words: str) -> Answer:
    return status, TEXT, f"{words}\n".encode()


class Witness:
    """The ASGI application. `on_failure` is called once the state can no longer be written."""

    def __init__(
        self, state: WitnessState, trust: Trust, clock: Clock, on_failure: Callable[[], None]
    ) -> None:
        self.state, self.trust, self.clock, self.on_failure = state, trust, clock, on_failure
        self.seen = Seen(clock.wall() // NANO)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status, kind, body = await self._answer(scope["method"], scope["path"], receive)
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, path: str, receive: Any) -> Answer:
        if path == "/add-checkpoint":
            if method != "POST":
                return _say(405, "POST is wanted")
            name, answer = await self._add(receive)
            self.seen.answers[name] += 1
            return answer
        if method not in ("GET", "HEAD"):
            return _say(405, "GET is wanted")
        if path == "/":
            return 200, TEXT, page(self.state, self.seen).encode()
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", metrics(self.state, self.seen)
        return self._checkpoint(path)

    def _checkpoint(self, path: str) -> Answer:
        asked, _, rest = path.removeprefix("/").partition("/")
        if rest == "checkpoint":
            for origin, held in self.state.logs.items():
                if origin_hash(origin) == asked:
                    return 200, TEXT, held.note.encode()
        return _say(404, "there is nothing here")

    async def _add(self, receive: Any) -> tuple[str, Answer]:
        """What is counted, and the answer."""
        if self._under_way >= UNDER_WAY_MAX:
            return "busy", _say(503, f"{UNDER_WAY_MAX} submissions are under way")
        self._under_way += 1
        try:
            body = await _read(receive)
            if len(body) > BODY_BYTES_MAX:
                return "too_large", _say(413, f"more than {BODY_BYTES_MAX} bytes")
            submission = Submission.read(body)
            origin = origin_of(submission)
            async with self._locks.setdefault(origin, asyncio.Lock()):
                return await self._judge(origin, submission)
        except _Late:
            return "late", _say(408, f"the request took longer than {REQUEST_SECONDS_MAX:g} s")
        except Malformed as error:
            return "malformed", _say(400, str(error))
        except OSError as error:
            log.critical("the state cannot be written, this ends: %s", error)
            self.on_failure()
            return "failed", _say(500, "the state cannot be written")
        finally:
            self._under_way -= 1

    async def _judge(self, origin: str, submission: Submission) -> tuple[str, Answer]:
        """Under the origin's lock: nothing comes between the look at the last size and the next."""
        held = self.state.logs.get(origin)
        verdict: Verdict = judge(submission, self.trust, held.checkpoint if held else None)
        if isinstance(verdict, Refused):
            await self._refuse(origin, verdict, submission)
            if verdict.status == 409:
                return verdict.refusal, (409, SIZE, verdict.words.encode())
            return verdict.refusal, _say(verdict.status, verdict.words)
        if not self.state.has_room(origin):
            log.error("%s is not taken up: this state is full", origin)
            return "full", _say(507, "this witness holds as many logs as it may")
        return "cosigned", (200, TEXT, str(await self._cosign(verdict, submission)).encode())

    async def _cosign(self, verdict: Consistent, submission: Submission) -> Signature:
        point, now = verdict.checkpoint, self.clock.wall() // NANO
        cosignature = note.cosign(submission.note.text, self.state.key, now)
        cosigned = Note(submission.note.text, (*verdict.signatures, cosignature))
        await asyncio.to_thread(self.state.write, point.origin, cosigned)
        self.state.logs[point.origin] = Remembered(point, cosigned, now)
        for alarm in self.state.answered(point):
            await asyncio.to_thread(self.state.remove_alarm, alarm)
            self.state.alarms.pop(alarm.file, None)
            log.warning("%s: %d leaves were unproven and are proved now", alarm.origin, alarm.size)
        return cosignature

    async def _refuse(self, origin: str, verdict: Refused, submission: Submission) -> None:
        suspect = verdict.suspect
        if suspect is None:
            log.info("%s is refused, %s: %s", origin[:200], verdict.refusal, verdict.words.strip())
            return
        root, now = suspect.root.hex(), self.clock.wall() // NANO
        words = verdict.words if verdict.status != 409 else "another root was cosigned here"
        alarm = Alarm(verdict.refusal, origin, suspect.size, root, now, words)
        log.critical("ALARM %s: %s, %d leaves, root %s: %s",
                     verdict.refusal, origin, suspect.size, root, words)  # fmt: skip
        if not self.state.has_room_for(alarm):
            self.seen.alarms_not_kept += 1
        elif alarm.file not in self.state.alarms:
            await asyncio.to_thread(self.state.write_alarm, alarm, submission)
            self.state.alarms[alarm.file] = alarm


class _Late(Exception):
    """The request did not come in time."""


async def _read(receive: Any) -> bytes:
    """The body, or the first of it that is too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(REQUEST_SECONDS_MAX):
            while len(body) <= BODY_BYTES_MAX:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise _Late from None
    return bytes(body)


class Protocol(H11Protocol):
    """uvicorn's, with a bound on connections and on the time that a head may take."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            self.config.app.seen.connections_refused += 1  # type: ignore[union-attr]
            transport.abort()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._watch()
        else:
            self._unwatch()

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(REQUEST_SECONDS_MAX, self.transport.abort)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def listen(address: str) -> socket.socket:
    """A listening socket at `host:port`; OSError where it is taken or not ours."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server((host, int(port)), family=family, backlog=CONNECTIONS_MAX)
    # Connections inherit it; asyncio sets it only on sockets that were made with proto=IPPROTO_TCP.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def serve(
    state: WitnessState,
    trust: Trust,
    listening: Sequence[socket.socket],
    clock: Clock,
    say: Callable[[str], None],
) -> int:
    """Answer until SIGTERM or SIGINT: 0, 1 with an alarm on record, 74 if the state failed."""
    return asyncio.run(_serve(state, trust, listening, clock, say))


async def _serve(
    state: WitnessState,
    trust: Trust,
    listening: Sequence[socket.socket],
    clock: Clock,
    say: Callable[[str], None],
) -> int:
    failed = asyncio.Event()

    def stop() -> None:
        server.should_exit = True

    def fail() -> None:
        failed.set()
        stop()

    config = uvicorn.Config(
        Witness(state, trust, clock, fail), http=Protocol, ws="none", lifespan="off",
        log_config=None, access_log=False, server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX, timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )  # fmt: skip
    server = Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    for each in listening:
        host, port, *_ = each.getsockname()
        say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
    for alarm in state.alarms.values():
        log.critical("ALARM on record, %s: %s, %d leaves: alarms/%s",
                     alarm.kind, alarm.origin, alarm.size, alarm.file)  # fmt: skip
    await server.serve(sockets=list(listening))
    if failed.is_set():
        return EXIT_STATE
    return EXIT_ALARM if state.alarms else 0
