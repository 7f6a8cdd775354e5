"""From a journal's record to a leaf: pure.

The record's header is spliced in as the worker wrote it, byte for byte; scores and outcomes are
read from the answer's body as sent, with the card of the version that gave it. A body that nobody
can read is sealed as such and stops no one.

A leaf is an entry of a tile log and so has at most 65,535 bytes (c2sp.org/tlog-tiles). Decisions of
a batch that would make it longer lie beside the bodies, and the leaf has their digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gateway.card import Card
from gateway.journal.record import EMPTY, Part
from gateway.protocol.reader import reader_of
from gateway.protocol.tensor import Unreadable
from gateway.table import Model

FORMAT = 3
"""3: an exchange of a shadow may have a `comparison`, a generation a `trace`; 2 and 1 are read as
before."""
ROWS_MAX = 65_536
"""Decisions that are taken from one answer."""
DECISIONS_BYTES_MAX = 48 * 1024
"""Longer decisions lie beside the bodies: with the record a leaf has to stay below 64 KiB."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Scores and outcomes, one a row, or why there are none; what a generated answer says."""

    decisions: tuple[dict[str, Any], ...] = ()
    unreadable: str | None = None
    completion: dict[str, Any] | None = None
    trace: dict[str, Any] | None = None


def decisions_of(
    header: dict[str, Any],
    context: dict[str, Any],
    response: Part,
    card: Card | None,
    model: Model | None = None,
    request: Part = EMPTY,
) -> Findings:
    """The decisions of an exchange: rows of a successful inference of a version with a card."""
    if header.get("status") != 200:
        return Findings()
    if header.get("protocol") == "openai":
        return Findings(
            completion=_completion(header, context, response),
            trace=_trace(header, context, request, response),
        )
    if header.get("operation") != "infer" or card is None:
        return Findings()
    if response.truncated:
        return Findings(unreadable="truncated")
    headers = context.get("response_headers", ())
    try:
        scores = reader_of(header, model).scores(card, response.kept, headers)
    except Unreadable as error:
        return Findings(unreadable=str(error)[:200])
    if len(scores) > ROWS_MAX:
        return Findings(unreadable=f"{len(scores)} rows; at most {ROWS_MAX} are taken")
    outcome = card.outputs.outcome
    return Findings(
        tuple(
            {"score": score, "outcome": outcome.of(score) if outcome else None} for score in scores
        )
    )


def _completion(
    header: dict[str, Any], context: dict[str, Any], response: Part
) -> dict[str, Any] | None:
    """Of a stream the worker has said it already."""
    if "completion" in header:
        return None
    headers = context.get("response_headers", ())
    kept = b"" if response.truncated else response.kept
    return reader_of(header, None).completion(header.get("operation"), kept, headers)


def _trace(
    header: dict[str, Any], context: dict[str, Any], request: Part, response: Part
) -> dict[str, Any] | None:
    """How a generation was asked for and how sure its tokens were, as far as bodies were kept."""
    reader = reader_of(header, None)
    told: dict[str, Any] = {}
    try:
        if not request.truncated:
            headers = context.get("request_headers", ())
            told["asked"] = reader.asked(header.get("operation"), request.kept, headers)
        if not response.truncated:
            headers = context.get("response_headers", ())
            told["logprobs"] = reader.logprobs(response.kept, headers)
    except Unreadable:
        pass
    return {name: value for name, value in told.items() if value} or None


def encode_decisions(findings: Findings) -> bytes:
    return orjson.dumps(findings.decisions, option=orjson.OPT_SORT_KEYS)


def encode_leaf(
    kind: str,
    record: bytes,
    *,
    source: tuple[str, int] | None = None,
    body: dict[str, Any] | None = None,
    comparison: dict[str, Any] | None = None,
    completion: dict[str, Any] | None = None,
    decisions: bytes | None = None,
    decisions_at: dict[str, Any] | None = None,
    trace: dict[str, Any] | None = None,
    unreadable: str | None = None,
) -> bytes:
    """Canonical JSON: sorted keys, with the record's own bytes as they were.

    `source`: journal and sequence; `decisions`: what `encode_decisions` made.
    """
    pieces = []
    if body is not None:
        pieces.append(b'"body":' + orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
    if comparison is not None:
        compared = orjson.dumps(comparison, option=orjson.OPT_SORT_KEYS)
        pieces.append(b'"comparison":' + compared)
    if completion is not None:
        said = orjson.dumps(completion, option=orjson.OPT_SORT_KEYS)
        pieces.append(b'"completion":' + said)
    if decisions is not None:
        pieces.append(b'"decisions":' + decisions)
    if decisions_at is not None:
        pieces.append(b'"decisions_at":' + orjson.dumps(decisions_at, option=orjson.OPT_SORT_KEYS))
    pieces.append(b'"format":%d' % FORMAT)
    pieces.append(b'"kind":' + orjson.dumps(kind))
    pieces.append(b'"record":' + record)
    if source is not None:
        pieces.append(b'"sequence":%d' % source[1])
        pieces.append(b'"source":' + orjson.dumps(source[0]))
    if trace is not None:
        pieces.append(b'"trace":' + orjson.dumps(trace, option=orjson.OPT_SORT_KEYS))
    if unreadable is not None:
        pieces.append(b'"unreadable":' + orjson.dumps(unreadable))
    return b"{" + b",".join(pieces) + b"}"
