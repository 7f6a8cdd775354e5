"""A credential that an upstream wants, by reference: `env:NAME` or `file:PATH`.

A file is read again when it changes; while it cannot be read, the former value goes on. The value
is in no record, no log and no message.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from gateway.dataplane.response import CONTROLS
from gateway.errors import Refusal
from gateway.tls import Watched

log = logging.getLogger("headworks.credential")


class Credential:
    def __init__(self, auth: Mapping[str, str]) -> None:
        self.header = auth["header"].encode()
        self.source = auth["source"]
        self._kind, _, self._name = self.source.partition(":")
        self._watched = Watched([self._name] if self._kind == "file" else [])
        self._value = b""
        self._read()

    def __repr__(self) -> str:
        return f"<Credential {self.source} for {self.header.decode()}>"

    @property
    def value(self) -> bytes:
        """Refusal `upstream_credentials` while there is none."""
        if not self._value:
            raise Refusal("upstream_credentials", f"{self.source} holds no credential")
        return self._value

    def look(self) -> None:
        """Read it again if its file has changed."""
        if self._watched.changed():
            self._read()

    def _read(self) -> None:
        if self._kind == "env":
            value = os.environb.get(self._name.encode(), b"")
        else:
            try:
                value = Path(self._name).read_bytes()
            except OSError as error:
                log.error("%s: %s", self.source, error.strerror)
                return
        value = value.strip()
        if len(value.translate(None, CONTROLS)) != len(value):
            log.error("%s holds a control character and is not used", self.source)
            return
        self._value = value
