"""Alerts to the webhook that the revision in force names, signed as Standard Webhooks has it.

`webhook-id` is the leaf and the place in it, `webhook-timestamp` the seconds of sending, and
`webhook-signature` `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` under the secret.

Each is sent in order and until it is taken (2xx), later each time, or for an hour: then it is
dropped and counted, as is one made again by a catalog that was lost. A crash may send one twice,
under the same id. Nobody waits for any of it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson

from gateway.clock import Clock
from gateway.telemetry.metrics import Metrics

LOOK_S = 1.0
BACKOFF_S = (1.0, 5.0, 15.0, 60.0)
STALE_NS = 3600 * 10**9
TIMEOUT_S = 5.0
log = logging.getLogger("headworks.webhook")
Place = tuple[int, int]
Waiting = tuple[Place, int, dict[str, Any]]
"""Place, when it happened (ns), the record."""


def signature(secret: bytes, identity: str, timestamp: int, body: bytes) -> str:
    signed = f"{identity}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()


def read_secret(source: str) -> bytes:
    """The value behind `env:NAME` or `file:PATH`. OSError where there is none."""
    kind, _, name = source.partition(":")
    value = (
        os.environb.get(name.encode(), b"") if kind == "env" else Path(name).read_bytes()
    ).strip()
    if not value:
        raise OSError(f"{source} holds no secret")
    return value


class Webhook:
    """`waiting` gives, in order, what is to be sent behind a place; `delivered` is the place of
    the last one that is done with, kept by whoever made this."""

    def __init__(
        self,
        waiting: Callable[[Place], list[Waiting]],
        target: Callable[[], dict[str, str] | None],
        delivered: Place,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._waiting, self._target = waiting, target
        self.delivered, self._metrics, self._clock = delivered, metrics, clock
        self._failures = 0

    async def keep_sending(self, stopping: asyncio.Event) -> None:
        async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client:
            while not stopping.is_set():
                target = self._target()
                waiting = await asyncio.to_thread(self._waiting, self.delivered)
                for place, at, document in waiting:
                    if target is not None and not await self._done(client, target, place, at,
                                                                  document):  # fmt: skip
                        break
                    self.delivered = place
                wait = BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]
                await asyncio.sleep(wait if self._failures else LOOK_S)

    async def _done(
        self, client: Any, target: dict[str, str], place: Place, at: int, document: dict[str, Any]
    ) -> bool:
        """Whether there is nothing more to do about it."""
        answer = await self._send(client, target, place, document)
        self._metrics.count("headworks_webhook", answer)
        if answer == "taken":
            self._failures = 0
            return True
        self._failures += 1
        if self._clock.steady() - at < STALE_NS:
            return False
        self._metrics.count("headworks_webhook", "dropped")
        return True

    async def _send(
        self, client: Any, target: dict[str, str], place: Place, document: dict[str, Any]
    ) -> str:
        body = orjson.dumps({"event": document["event"], "alert": document["alert"]})
        identity, now = f"{place[0]}.{place[1]}", self._clock.wall() // 10**9
        try:
            secret = read_secret(target["secret"])
            headers = {
                "content-type": "application/json",
                "webhook-id": identity,
                "webhook-timestamp": str(now),
                "webhook-signature": signature(secret, identity, now, body),
            }
            answer = await client.post(target["url"], content=body, headers=headers)
        except (httpx2.HTTPError, OSError) as error:
            log.warning("alert %s is not sent to %s: %s", identity, target["url"], error)
            return "failed"
        return "taken" if answer.is_success else "refused"
