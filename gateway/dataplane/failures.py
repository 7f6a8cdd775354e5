"""How an exchange with an upstream fails: each with its code, and how far it had come."""

from __future__ import annotations


class UpstreamError(Exception):
    """No good answer came from the upstream. `phase` says how far the exchange was."""

    code = "upstream_error"

    def __init__(self, detail: str, phase: str) -> None:
        super().__init__(f"{self.code} ({phase}): {detail}")
        self.detail = detail
        self.phase = phase


class UpstreamConnectFailed(UpstreamError):
    """Nothing was sent: phase resolve, connect, tls or closed (our pool is)."""

    code = "upstream_connect_failed"


class UpstreamTimeout(UpstreamError):
    """Phase connect, first_byte, idle, or request: the absolute deadline."""

    code = "upstream_timeout"


class UpstreamReset(UpstreamError):
    """Closed early: phase reused_closed (not a byte came, on a connection used before), head, body,
    or aborted (by us)."""

    code = "upstream_reset"


class UpstreamProtocolError(UpstreamError):
    """Bytes that HTTP/1.1 does not allow: phase early, head or body."""

    code = "upstream_protocol_error"


class UpstreamOverloaded(UpstreamError):
    """Nothing was sent: phase pending, the queue for a connection is full."""

    code = "upstream_overloaded"
