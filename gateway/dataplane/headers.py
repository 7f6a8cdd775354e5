"""Headers on their way through: what is hop-by-hop, ours, kept. Pure.

A proxy passes what it does not know. Names come in lower case from the server's protocol.
"""

from __future__ import annotations

from functools import lru_cache

from gateway.exchange import NEVER_KEPT, Headers

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
     b"upgrade", b"expect")
)  # fmt: skip

AUTHORIZATION = frozenset((b"authorization",))
NONE: frozenset[bytes] = frozenset()


def as_dict(headers: Headers) -> dict[bytes, bytes]:
    """The first value of each name."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found.setdefault(name, value)
    return found


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Names that a connection header, or any of several, makes hop-by-hop; in lower case."""
    values = [value for name, value in headers if len(name) == 10 and name.lower() == b"connection"]
    if not values or (len(values) == 1 and values[0].lower() in (b"keep-alive", b"close")):
        return frozenset()
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


def left_out(
    headers: Headers,
    first: dict[bytes, bytes],
    *,
    traffic: bytes | None = None,
    own_authorization: bool,
    credential: bytes | None = None,
    redacted: frozenset[bytes] = frozenset(),
) -> frozenset[bytes]:
    """Names that go no further with this request, beside those that never do.

    `own_authorization`: the bearer token was ours (a caller's key) and goes no further.
    `credential`: name of the header in which the upstream gets our own. What is no answer to the
    caller (`traffic`) never carries his credentials, nor what is `redacted` from records.
    """
    less = AUTHORIZATION if own_authorization else NONE
    if b"connection" in first:
        less |= _named_by_connection(headers)
    if credential is not None:
        less |= {credential}
    if traffic is not None:
        less |= NEVER_KEPT | redacted
    return less


def to_upstream(
    headers: Headers,
    less: frozenset[bytes],
    *,
    exchange: str,
    trace: bytes,
    traffic: bytes | None = None,
) -> Headers:
    """What an upstream gets: all but host, hop-by-hop, ours and `left_out`, with our id and the
    trace."""
    sent = [item for item in headers if is_passed(item[0]) and item[0] not in less]
    sent.append((b"x-headworks-id", exchange.encode()))
    sent.append((b"traceparent", trace))
    if traffic is not None:
        sent.append((b"x-headworks-traffic", traffic))
    return sent


def to_client(headers: Headers) -> Headers:
    """An upstream's answer headers without hop-by-hop ones and without any in our own name."""
    named = _named_by_connection(headers)
    return [item for item in headers
            if _is_returned(item[0]) and (not named or item[0].lower() not in named)]  # fmt: skip


@lru_cache(maxsize=128)
def is_passed(name: bytes) -> bool:
    """Whether an upstream gets a header of this name, in lower case, as it came."""
    return _is_returned(name) and name not in (b"host", b"traceparent", b"content-length")


@lru_cache(maxsize=128)
def _is_returned(name: bytes) -> bool:
    low = name.lower()
    return low not in HOP_BY_HOP and not low.startswith(b"x-headworks-")


def kept(headers: Headers, dropped: frozenset[bytes]) -> list[tuple[str, str]]:
    """Headers for the record, without secrets."""
    found: list[tuple[str, str]] = []
    for name, value in headers:
        shown = _kept_as.get(name)
        if shown is None:
            shown = _learn(name)
        if shown and not (dropped and name.lower() in dropped):
            found.append((shown, value.decode("latin-1")))
    return found


NAMES_MAX = 256
_kept_as: dict[bytes, str] = {}
"""Names as records have them; empty: not at all. Filled with what comes, up to `NAMES_MAX`."""


def _learn(name: bytes) -> str:
    low = name.lower()
    secret = low in NEVER_KEPT or low.startswith(b"proxy-")
    shown = "" if secret else name.decode("latin-1")
    if len(_kept_as) < NAMES_MAX:
        _kept_as[name] = shown
    return shown
