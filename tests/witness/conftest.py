"""A daemon for each test, ended with it."""

import pytest
from tree import Daemon, log_key


@pytest.fixture
def run(tmp_path):
    """Start daemons; all still running are killed at the end."""
    daemons = []

    def start(*trust, state="witness", **named) -> Daemon:
        keys = trust or (log_key("bank.example/root").verifier,)
        daemon = Daemon(tmp_path / state, *keys, **named)
        daemons.append(daemon)
        return daemon.start()

    yield start
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.end(9)
