"""Headers on their way through: what is hop-by-hop, ours, kept. Pure.

A proxy passes what it does not know. Names come in lower case from the server's protocol.
"""

from __future__ import annotations

from gateway.exchange import Headers

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
     b"upgrade", b"expect")
)  # fmt: skip
NEVER_KEPT = frozenset(
    (b"authorization", b"cookie", b"set-cookie", b"x-api-key", b"api-key", b"x-headworks-session")
)


def as_dict(headers: Headers) -> dict[bytes, bytes]:
    """The first value of each name."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found.setdefault(name, value)
    return found


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Names that a connection header, or any of several, makes hop-by-hop; in lower case."""
    values = [value for name, value in headers if name.lower() == b"connection"]
    if not values or (len(values) == 1 and values[0].lower() in (b"keep-alive", b"close")):
        return frozenset()
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


def to_upstream(
    headers: Headers,
    first: dict[bytes, bytes],
    *,
    exchange: str,
    trace: bytes,
    traffic: bytes | None = None,
    own_authorization: bool,
    credential: bytes | None = None,
    redacted: frozenset[bytes] = frozenset(),
) -> Headers:
    """What an upstream gets: all but host, hop-by-hop and ours, with our id and the trace.

    `own_authorization`: the bearer token was ours (a caller's key) and goes no further.
    `credential`: name of the header in which the upstream gets our own. What is no answer to the
    caller (`traffic`) never carries his credentials, nor what is `redacted` from records.
    """
    dropped = _named_by_connection(headers) if b"connection" in first else frozenset()
    sent = []
    for item in headers:
        name = item[0]
        if name in HOP_BY_HOP or name in dropped or name.startswith(b"x-headworks-"):
            continue
        if name in (b"host", b"traceparent", b"content-length"):
            continue
        if traffic is not None and (name in NEVER_KEPT or name in redacted):
            continue
        if name == credential or (own_authorization and name == b"authorization"):
            continue
        sent.append(item)
    sent.append((b"x-headworks-id", exchange.encode()))
    sent.append((b"traceparent", trace))
    if traffic is not None:
        sent.append((b"x-headworks-traffic", traffic))
    return sent


def to_client(headers: Headers) -> Headers:
    """An upstream's answer headers without hop-by-hop ones and without any in our own name."""
    named = _named_by_connection(headers)
    return [
        (name, value)
        for name, value in headers
        if (low := name.lower()) not in HOP_BY_HOP
        and low not in named
        and not low.startswith(b"x-headworks-")
    ]


def kept(headers: Headers, dropped: frozenset[bytes]) -> list[list[str]]:
    """Headers for the record, without secrets."""
    return [
        [name.decode("latin-1"), value.decode("latin-1")]
        for name, value in headers
        if (low := name.lower()) not in NEVER_KEPT
        and low not in dropped
        and not low.startswith(b"proxy-")
    ]
