"""Calls that ask an upstream for scores, to explain what it answered: marked, and no exchanges."""

from __future__ import annotations

import httpx2

from gateway.telemetry.metrics import Metrics

HEADERS = {"content-type": "application/json", "x-headworks-traffic": "explain"}


class Scores:
    """One client; never follows, never retries."""

    def __init__(self, metrics: Metrics) -> None:
        self._client = httpx2.Client(follow_redirects=False, headers=HEADERS)
        self._metrics = metrics

    def __call__(self, url: str, body: bytes | None, left_s: float) -> bytes:
        """The body of a 200 to a GET, or to a POST of `body`. OSError for anything else."""
        method = "GET" if body is None else "POST"
        try:
            answer = self._client.request(method, url, content=body, timeout=left_s)
        except httpx2.HTTPError as error:
            self._metrics.count("headworks_explain_calls", "failed")
            raise ConnectionError(f"{type(error).__name__}: {error}") from None
        self._metrics.count("headworks_explain_calls", str(answer.status_code))
        if answer.status_code != 200:
            raise ConnectionError(f"status {answer.status_code}")
        return answer.content

    def close(self) -> None:
        self._client.close()
