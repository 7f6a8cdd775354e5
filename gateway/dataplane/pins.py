"""The workers' key for pins of sessions: made once, the same for all, kept under `keys`."""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path

from gateway.dataplane.account import Account
from gateway.disk import sync_folder, write_durably
from gateway.exchange import Choice
from gateway.routing.choice import keep
from gateway.routing.pin import pin_header, read_pin, sign_pin, token_of
from gateway.table import Rule

KEY_BYTES = 32
log = logging.getLogger("headworks.pins")


class Pins:
    """`keys`: the folder; read at the first pin. Hosts that share sessions share its file."""

    def __init__(self, keys: Path) -> None:
        self.path = keys / "session.key"
        self._key: bytes | None = None

    def follow(self, account: Account, rule: Rule, choice: Choice) -> Choice:
        """The choice that the session's pin makes of it; a session without a pin gets one."""
        assert account.model is not None
        model, now_s = account.model, account.wall_ns // 10**9
        try:
            key = self._key = self._key or read_key(self.path)
        except (OSError, ValueError):
            log.exception("sessions get no pins")
            return choice
        token = token_of(model, rule, account.first)
        version = read_pin(key, model, rule, token, now_s) if token is not None else None
        if version is not None:
            return keep(version, rule, choice)
        account.pin = pin_header(model, rule, sign_pin(key, model, rule, choice.version, now_s))
        return choice


def read_key(path: Path) -> bytes:
    """The key, made if there is none: of several who make it at once, one wins."""
    while not path.exists():
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(beside, os.urandom(KEY_BYTES))
        try:
            os.link(beside, path)
        except FileExistsError:
            pass
        finally:
            beside.unlink()
        sync_folder(path.parent)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path}: {KEY_BYTES} bytes are wanted, not {len(key)}")
    return key
