"""Whole gateways for the tests of this folder; each is ended, whatever happened."""

import pytest
from gateway_process import GatewayProcess


@pytest.fixture
def make_gateway(tmp_path):
    made = []

    def make(**named) -> GatewayProcess:
        gateway = GatewayProcess(tmp_path, **named)
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.kill_all()
