"""TLS contexts from PEM files, and whether those files have changed since.

A context is made whole or not at all: while a certificate and its key are being replaced one after
the other, making one fails, and who asked goes on with the context it has.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Mapping


def server_context(files: Mapping[str, str | None]) -> ssl.SSLContext:
    """From `cert`, `key` and, where clients must have certificates too, `client_ca`. OSError or
    ssl.SSLError (an OSError) where the files do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    cert, authorities = files["cert"], files.get("client_ca")
    assert cert is not None
    context.load_cert_chain(cert, files["key"], password=_no_password)
    if authorities is not None:
        context.load_verify_locations(authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: Mapping[str, str | None]) -> ssl.SSLContext:
    """Verifies the server and its name, with the authorities of `ca` or else the system's; shows
    `cert` with `key` where given. OSError as above."""
    context = ssl.create_default_context(cafile=files.get("ca"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if (cert := files.get("cert")) is not None:
        context.load_cert_chain(cert, files["key"], password=_no_password)
    return context


def pinned_context(cert: str) -> ssl.SSLContext:
    """For the commands, which can read the certificate that the admin port shows: that one only,
    whatever name it carries."""
    context = ssl.create_default_context(cafile=cert)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def _no_password() -> str:
    """OpenSSL would ask the terminal for the password of an encrypted key."""
    raise OSError("the key is encrypted; one without a password is wanted")


class Watched:
    """Files that may be replaced while we run."""

    def __init__(self, names: Iterable[str | None]) -> None:
        self._names = tuple(name for name in names if name is not None)
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether any was replaced since this was last asked; one stat a file."""
        now = self._look()
        changed, self._seen = now != self._seen, now
        return changed

    def forget(self) -> None:
        """Let the next `changed` say yes."""
        self._seen = ()

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(name) for name in self._names)


def _stamp(name: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
