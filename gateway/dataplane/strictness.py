"""What no request of ours has, beyond what llhttp refuses: pure.

Each would be read in two ways by two servers in a row, which is how requests are smuggled.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.dataplane.response import CONTROLS
from gateway.exchange import Headers

SPOKEN: Final = frozenset(("1.1", "1.0"))
HOST_NOT: Final = re.compile(rb"[ \t,;/\\@?#<>\"']")
AUTHORITY: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
FRAMING: Final = (b"content-length", b"transfer-encoding")
DISGUISED: Final = frozenset((*FRAMING, b"host", b"connection", b"authorization"))


def find_wrong(url: bytes, headers: Headers, first: dict[bytes, bytes], version: str) -> str | None:
    """What no request of ours has, in words: another HTTP, a name in disguise, a control character,
    a coding of the message other than chunks, not exactly one host, another one in the target. Each
    is looked for in all headers."""
    if version not in SPOKEN:
        return f"HTTP/{version} is not spoken here, HTTP/1.1 is"
    if b"".join(first).find(b"_") >= 0:
        for name in first:
            if b"_" in name and _is_disguised(name):
                return f"header {name.decode('latin-1')[:80]!r} is not taken"
    several = len(first) != len(headers)
    values = b"".join([value for _, value in headers] if several else first.values())
    if len(values.translate(None, CONTROLS)) != len(values):
        name = next(n for n, value in headers if value.translate(None, CONTROLS) != value)
        return f"header {name.decode('latin-1')[:80]!r} is not taken"
    if b"transfer-encoding" in first:
        codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        if codings != [b"chunked"] or version == "1.0":
            return "transfer-encoding: nothing but chunked is taken"
    host = first.get(b"host")
    several = several and [name for name, _ in headers].count(b"host") > 1
    if (host is None and version != "1.0") or several or (host and HOST_NOT.search(host)):
        return "host: exactly one name is wanted"
    named = None if url.startswith(b"/") else AUTHORITY.match(url)
    if named is not None and named[1].lower() != (host or b"").lower():
        # Who goes by the target and who goes by the header would see two hosts (RFC 9112, 3.2.2).
        return "host: the target names another one"
    return None


def _is_disguised(name: bytes) -> bool:
    """Some servers read underscores in names as dashes."""
    read = name.replace(b"_", b"-")
    return read in DISGUISED or read.startswith(b"x-headworks-")
