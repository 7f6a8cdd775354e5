"""One request to a version, as the bytes that any of its endpoints gets: pure.

Invariants kept here:

* **A head says one thing.** No line end, NUL or malformed name can end a header early, there is one
  host, and the body's framing is ours alone: whatever the caller said of it stays behind.
* **It is made once.** Only the endpoint's host and path prefix and our credential, which may change
  between two attempts, are put in when it is sent.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from gateway.dataplane.headers import is_passed
from gateway.dataplane.upload import Upload
from gateway.exchange import Headers

TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
NOT_IN_TARGET: Final = re.compile(rb"[\x00-\x20\x7f]")
FRAMING: Final = (b"host", b"content-length", b"transfer-encoding", b"expect")
METHODS_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})


class Request:
    """`fields` is what `upstream_fields` made; `target` is in origin form. ValueError for what must
    not be sent."""

    __slots__ = ("_fields", "_line", "_target", "body", "method")

    def __init__(self, method: bytes, target: bytes, fields: bytes, body: bytes | Upload) -> None:
        check_line(method, target)
        self.method, self.body = method, body
        self._target = target
        length = len(body) if isinstance(body, bytes) else body.length
        if length is None:
            fields += b"\r\ntransfer-encoding: chunked\r\n\r\n"
        elif length or method in METHODS_WITH_BODY:
            fields += b"\r\ncontent-length: %d\r\n\r\n" % length
        else:
            fields += b"\r\n\r\n"
        self._fields = fields

    def head(self, host: bytes, base_path: bytes, credential: bytes) -> bytes:
        """For one endpoint; `credential` is a line of `line`, or nothing."""
        target = base_path + self._target if self._target[:1] == b"/" else self._target
        return b"".join((
            self.method, b" ", target, b" HTTP/1.1\r\nhost: ", host, credential, self._fields
        ))  # fmt: skip


def upstream_fields(
    headers: Headers, left_out: frozenset[bytes], exchange: str, trace: bytes, traffic: bytes | None
) -> bytes:
    """A caller's headers (names in lower case) as they go on, with our id and the trace."""
    starts = _starts(left_out)
    lines: list[bytes] = []
    for name, value in headers:
        start = starts.get(name)
        if start is None:
            start = _learn(name, left_out, starts)
        if start:
            lines.append(start + value)
    lines.append(b"x-headworks-id: " + exchange.encode())
    lines.append(b"traceparent: " + trace)
    if traffic is not None:
        lines.append(b"x-headworks-traffic: " + traffic)
    fields = b"\r\n" + b"\r\n".join(lines)
    _check_ends(fields, len(lines))
    return fields


def line(name: bytes, value: bytes) -> bytes:
    """One more header, to be put before the others."""
    if meaning(name) is not None:
        raise ValueError(f"{name!r} frames a request and is not ours to say")
    made = b"\r\n" + name + b": " + value
    _check_ends(made, 1)
    return made


NAMES_MAX: Final = 1024


@lru_cache(maxsize=64)
def _starts(left_out: frozenset[bytes]) -> dict[bytes, bytes]:
    """How a header's line begins, by its name; empty: it goes no further. Filled with what comes,
    up to `NAMES_MAX`."""
    return {}


def _learn(name: bytes, left_out: frozenset[bytes], starts: dict[bytes, bytes]) -> bytes:
    passes = meaning(name) is None and is_passed(name) and name not in left_out
    start = name + b": " if passes else b""
    if len(starts) < NAMES_MAX:
        starts[name] = start
    return start


def request_head(
    method: bytes, target: bytes, headers: Headers, body_length: int | None
) -> bytes:  # fmt: skip
    """Request line and headers as given, with a content-length where one is due; chunked where the
    length is None.

    `expect` is left out: the whole body follows at once. Raises ValueError for anything by which
    the upstream could read another request than ours: line ends, NUL, bad names, a content-length
    that is not the body's, a transfer-encoding, no host or two.
    """
    lines = [method + b" " + target + b" HTTP/1.1"]
    hosts = lengths = 0
    for name, value in headers:
        framing = meaning(name)
        if framing is not None:
            if framing == b"host":
                hosts += 1
            elif framing == b"content-length":
                lengths += 1
                if body_length is None or value != b"%d" % body_length:
                    raise ValueError(f"content-length {value!r} with a body of {body_length} bytes")
            elif framing == b"transfer-encoding":
                raise ValueError("transfer-encoding is the pool's to decide")
            else:
                continue
        lines.append(name + b": " + value)
    if hosts != 1 or lengths > 1:
        raise ValueError(f"{hosts} host and {lengths} content-length headers")
    if body_length is None:
        lines.append(b"transfer-encoding: chunked")
    elif not lengths and (body_length or method in METHODS_WITH_BODY):
        lines.append(b"content-length: %d" % body_length)
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    _check_ends(head, len(lines))
    check_line(method, target)
    return head


@lru_cache(maxsize=128)
def check_line(method: bytes, target: bytes) -> None:
    """ValueError for a method or target by which a request could be read as another one."""
    if meaning(method) is not None or method == b"CONNECT":
        raise ValueError(f"malformed method {method!r}")
    if target[:1] not in (b"/", b"*") or NOT_IN_TARGET.search(target):
        raise ValueError(f"malformed target {target!r}")


def _check_ends(text: bytes, ends: int) -> None:
    if text.count(b"\r") != ends or text.count(b"\n") != ends or text.find(b"\0") >= 0:
        raise ValueError("CR, LF or NUL in the request's head")


@lru_cache(maxsize=128)
def meaning(name: bytes) -> bytes | None:
    """The name in lower case if it is one that frames a request; ValueError if it is no token."""
    if not name or name.translate(None, TOKEN):
        raise ValueError(f"malformed name {name!r}")
    low = name.lower()
    return low if low in FRAMING else None
