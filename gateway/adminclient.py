"""The commands' way to a running gateway: its admin port."""

from __future__ import annotations

import os
from typing import Any

import httpx2

from gateway.tls import pinned_context


class Unreachable(Exception):
    """No gateway answers there."""


class Refused(Exception):
    """The API said no; `status` and its own words."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        super().__init__(document.get("error", str(document)))
        self.status, self.document = status, document


class AdminClient:
    """`address` as in listen.admin, `cert` the certificate it shows if it speaks TLS; a person's
    token comes from HEADWORKS_TOKEN."""

    def __init__(self, address: str, cert: str | None = None) -> None:
        scheme, verify = ("https", pinned_context(cert)) if cert is not None else ("http", True)
        token = os.environ.get("HEADWORKS_TOKEN")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx2.Client(
            base_url=f"{scheme}://{address}", headers=headers, timeout=30, verify=verify
        )

    def get(self, path: str, **parameters: Any) -> Any:
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._ask("GET", path, params=given)

    def post(self, path: str, document: dict[str, Any]) -> Any:
        return self._ask("POST", path, json=document)

    def put(self, path: str, data: bytes, if_match: str) -> Any:
        """Text as it is, for the revision that it was made for."""
        return self._ask("PUT", path, content=data, headers={"if-match": f'"{if_match}"'})

    def _ask(self, method: str, path: str, **named: Any) -> Any:
        try:
            answer = self._client.request(method, path, **named)
        except httpx2.HTTPError as error:
            raise Unreachable(f"{self._client.base_url}: {error}") from None
        try:
            document = answer.json()
        except ValueError:
            raise Refused(answer.status_code, {"error": answer.text[:200]}) from None
        if answer.status_code >= 400:
            raise Refused(answer.status_code, document)
        return document
