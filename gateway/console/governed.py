"""The analyst's way to the governor: a leaf that must be durable before something is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

PURPOSE_MIN, PURPOSE_MAX = 5, 500


def check_purpose(purpose: object) -> str:
    if not isinstance(purpose, str) or not PURPOSE_MIN <= len(purpose.strip()) <= PURPOSE_MAX:
        words = f"{PURPOSE_MIN} to {PURPOSE_MAX} characters are wanted"
        raise ValueError(f"purpose={str(purpose)[:40]!r}: {words}")
    return purpose.strip()


class Governed:
    def __init__(self, socket: Path) -> None:
        transport = httpx2.AsyncHTTPTransport(uds=str(socket))
        self._client = httpx2.AsyncClient(
            transport=transport, base_url="http://headworks", timeout=30
        )

    async def tell(self, kind: str, record: dict[str, Any]) -> int:
        """The leaf's number, once it is durable. OSError: the governor does not answer."""
        try:
            answer = await self._client.post("/tell", json={"kind": kind, "record": record})
            answer.raise_for_status()
        except httpx2.HTTPError as error:
            raise ConnectionError(f"the governor does not answer: {error}") from None
        number: int = answer.json()["leaf"]
        return number

    async def read(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and document of the governor's own API; 503 where it does not answer."""
        try:
            answer = await self._client.get(path)
            told: dict[str, Any] = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            return 503, {"error": f"the governor does not answer: {error}", "code": "governor_down"}
        return answer.status_code, told
