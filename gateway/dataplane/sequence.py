"""Sequences: requests whose server keeps state between them, told by a body's own parameters."""

from __future__ import annotations

from gateway.dataplane.account import Account
from gateway.protocol import grpc, v2
from gateway.protocol.message import Message
from gateway.routing.body import sequence_in


def sequence_of(account: Account) -> str | None:
    """The sequence that a request belongs to, where its parameters can be read."""
    if account.dialect is not v2:
        return grpc.sequence_of(account.request) if account.dialect is grpc else None
    plain = b"content-encoding" not in account.first and account.upload is None
    if plain and account.request.find(b'"sequence_id"') < 0:
        return None  # most have none, and need no message made of them
    message = account.message()
    if account.upload is not None:  # of a longer body, its JSON part
        message = Message(account.upload.begun[: parameters_bytes(account)], message.headers)
    return sequence_in(account.dialect, message, account.limits["hold"])


def parameters_bytes(account: Account) -> int:
    """Length of the JSON part that stands before a v2 request's bytes; 0: it has none, or none that
    is looked into before the bytes have come."""
    assert account.model is not None
    told = account.first.get(v2.INFERENCE_HEADER, b"")
    if account.dialect is not v2 or not told.isdigit() or b"content-encoding" in account.first:
        return 0
    length = int(told[:12])
    return length if length <= account.limits["hold"] else 0
