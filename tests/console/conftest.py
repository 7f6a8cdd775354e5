"""One real gateway and one real browser for all tests of the console."""

from dataclasses import dataclass

import httpx2
import pytest
from browser import Browser
from gateway_process import KEY, GatewayProcess, body

MARKUP_GROUP = "<b>bold</b>"
MARKUP_HEADER = "<script>document.title='owned'</script>"
MARKUP_VALUE = "<i>no</i>"
DENIED = {"dir": 0.9, "hir": 0.6, "lvr": 1.2, "ccs": 6.0, "mcs": 4.0, "pbcr": "yes"}
WINDOW = 50


@dataclass
class World:
    gateway: GatewayProcess
    denied: str
    odd: str
    refused: str

    @property
    def address(self) -> str:
        return f"http://{self.gateway.admin}"

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.address + path, timeout=30)

    def reveal(self, path: str) -> httpx2.Response:
        """A decision's page, after its form was sent with a purpose."""
        return httpx2.post(self.address + path, data={"purpose": "a test reads it"}, timeout=30)

    def send(self, content: bytes, **headers: str) -> str:
        """One application; the exchange's id."""
        told = KEY | {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://{self.gateway.data}/v2/models/mortgage/infer"
        return httpx2.post(url, content=content, headers=told).headers["x-headworks-id"]


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A denied application, one with markup wherever a caller may write, one that was refused,
    and enough ordinary ones that a window is closed."""
    gateway = GatewayProcess(
        tmp_path_factory.mktemp("gateway"),
        edit=lambda text: text.replace("count: 500", f"count: {WINDOW}"),
    )
    gateway.start()
    try:
        world = World(gateway, "", "", "")
        world.denied = world.send(body(**DENIED), x_applicant="ann")
        world.odd = world.send(
            body(single=MARKUP_VALUE), x_applicant=MARKUP_HEADER, x_headworks_subject="<u>ben</u>",
            x_headworks_groups="race=black",
        )  # fmt: skip
        world.refused = world.send(body(), x_headworks_groups=f"race={MARKUP_GROUP}")
        for number in range(WINDOW + 20):
            world.send(body(lvr=0.5 + number / 100), x_headworks_groups="race=other")
        gateway.wait_settled()
        yield world
    finally:
        gateway.kill_all()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
