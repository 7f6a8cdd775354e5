"""What a version in the process answers, in the protocol it was asked in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dataplane.account import Account
from gateway.dataplane.inline import Given, Inline
from gateway.dataplane.inprocess import Session
from gateway.dataplane.single import Asked
from gateway.errors import Refusal
from gateway.exchange import Headers, Reply
from gateway.protocol import grpc, v2
from gateway.protocol.message import decoded
from gateway.protocol.tensor import Unreadable
from gateway.table import Model

JSON: Headers = [(b"content-type", v2.ERROR_TYPE)]
LOOP_BYTES = 256 * 1024
"""A longer body leaves the event loop for a thread before it is read."""

SHARED_BYTES = 4096


async def answer(session: Session, model: Model, account: Account) -> Reply:
    """Refusals name what was sent: `bad_body`, `bad_tensor`, `model_failed`, `unknown_path`."""
    called = account.dialect is grpc
    if account.operation == "ready":
        body = b'{"name":"%b","ready":true}' % model.name.encode()
        return Reply(200, [], grpc.write_flag(True)) if called else Reply(200, JSON, body)
    if account.operation == "metadata":
        told = session.metadata(list(model.versions))
        written = grpc.write_metadata(told) if called else orjson.dumps(told)
        return Reply(200, [] if called else JSON, written)
    if account.operation != "infer":
        raise Refusal("unknown_path", f"{account.operation!r} is not served in-process")
    asked = _single(session, account)
    if asked is not None and (reply := await _infer_single(session, model, asked)) is not None:
        return reply
    if len(account.request) > LOOP_BYTES:
        return await asyncio.to_thread(_infer, session, model, account, None)
    request = _read(account, account.limits["request"])
    if session.slow(request.rows):
        return await asyncio.to_thread(_infer, session, model, account, request)
    return _infer(session, model, account, request)


def _single(session: Session, account: Account) -> Asked | None:
    """One row of JSON tensors; None: it is something else."""
    first = account.first
    if len(account.request) > SHARED_BYTES or session.inline is not None:
        return None
    if account.dialect is grpc or b"content-encoding" in first or v2.INFERENCE_HEADER in first:
        return None
    return session.single.read(account.request)


async def _infer_single(session: Session, model: Model, asked: Asked) -> Reply | None:
    """None: it failed, and the general way has the words for it."""
    outputs, feeds = session.outputs, asked.feeds
    try:
        if session.slow(1):
            feeds = {name: array.copy() for name, array in feeds.items()}  # the next row is read
            computed = await asyncio.to_thread(session.compute, outputs, feeds, 1)
        else:
            computed = session.compute(outputs, feeds, 1)
    except Exception:
        return None
    version = session.version if "version" in model.expose else None
    body, _ = v2.write_outputs(model.name, version, asked.id, computed)
    return Reply(200, JSON, body)


def _read(account: Account, at_most: int) -> v2.Request:
    """A shadow's account has what its exchange's version read, if that is small: the bytes that
    may wait for shadows are counted as they were sent, and values of JSON take ten times as many.
    """
    if account.inference is not None:
        return account.inference
    request = _parse(account, at_most)
    if len(account.request) <= SHARED_BYTES and b"content-encoding" not in account.first:
        account.inference = request
    return request


def _parse(account: Account, at_most: int) -> v2.Request:
    try:
        if account.dialect is grpc:
            return grpc.read_request(account.request)
        coding = account.first.get(b"content-encoding", b"").decode("latin-1")
        body = decoded(account.request, coding, at_most)
        return v2.read_request(body, account.first.get(v2.INFERENCE_HEADER))
    except Unreadable as error:
        raise Refusal("bad_body", str(error)) from None


def _infer(session: Session, model: Model, account: Account, asked: v2.Request | None) -> Reply:
    request = asked if asked is not None else _read(account, account.limits["request"])
    outputs = session.run(request)
    version = session.version if "version" in model.expose else None
    called = account.dialect is grpc
    reply = _write(model.name, version, request, outputs, called=called)
    if session.inline is None or account.primary is not None:
        return reply
    given = _reasons(session.inline, session, model, account, request, outputs)
    account.extra["reasons"] = given.to_json()
    return Reply(reply.status, reply.headers + given.headers(), reply.body, reply.trailers)


def _reasons(
    inline: Inline, session: Session, model: Model, account: Account, request: v2.Request,
    outputs: dict[str, Any],
) -> Given:  # fmt: skip
    """For the scores that the caller reads in this answer."""
    score = session.card.outputs.score
    name, column = model.mapping.get("output"), model.mapping.get("column")
    name, column = name or score.tensor, score.column if column is None else column
    if name not in outputs:
        return Given([], "score_not_asked")
    scores = outputs[name].reshape(len(outputs[name]), -1)[:, column]
    if account.dialect is grpc or (_binary(request, outputs) or {}).get(name):
        told = scores.tolist()
    else:  # in JSON a score is its shortest text
        told = orjson.loads(orjson.dumps(scores.copy(), option=orjson.OPT_SERIALIZE_NUMPY))
    spent_ns = account.clock.steady() - account.arrived_ns
    return inline.explain(session.feeds(request), told, spent_ns)


def _binary(request: v2.Request, outputs: dict[str, Any]) -> Mapping[str, bool] | None:
    """Which outputs are written as bytes."""
    if request.outputs is None and request.binary:
        return dict.fromkeys(outputs, True)
    return request.outputs


def _write(
    model: str, version: str | None, request: v2.Request, outputs: dict[str, Any], *, called: bool
) -> Reply:
    if called:
        return Reply(200, [], grpc.write_outputs(model, version, request.id, outputs))
    binary = _binary(request, outputs)
    body, length = v2.write_outputs(model, version, request.id, outputs, binary)
    if length is None:
        return Reply(200, JSON, body)
    headers = [(b"content-type", v2.BINARY_TYPE), (v2.INFERENCE_HEADER, b"%d" % length)]
    return Reply(200, headers, body)
