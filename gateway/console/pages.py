from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response


class Pages:
    def __init__(self, api: Any) -> None:
        self.api = api

    async def home(self, request: Request) -> Response:
        return HTMLResponse("headworks")

    async def decision(self, request: Request) -> Response:
        return HTMLResponse("headworks")

    async def model(self, request: Request) -> Response:
        return HTMLResponse("headworks")
