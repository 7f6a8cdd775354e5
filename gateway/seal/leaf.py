"""From a journal's record to a leaf: pure.

The record's header is spliced in as the worker wrote it, byte for byte; scores and outcomes are
read from the answer's body as sent, with the card of the version that gave it. A body that nobody
can read is sealed as such and stops no one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gateway.card import Card
from gateway.journal.record import decode_parts
from gateway.protocol.reader import reader_of
from gateway.protocol.tensor import Unreadable
from gateway.table import Model

ROWS_MAX = 65_536
"""Decisions that one leaf may hold: it has to stay below `ledger.log.ENTRY_BYTES_MAX`."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Scores and outcomes, one a row, or why there are none; what a generated answer says."""

    decisions: tuple[dict[str, Any], ...] = ()
    unreadable: str | None = None
    completion: dict[str, Any] | None = None


def decisions_of(
    header: dict[str, Any], parts: bytes, card: Card | None, model: Model | None = None
) -> Findings:
    """The decisions of an exchange: rows of a successful inference of a version with a card."""
    if header.get("status") != 200:
        return Findings()
    if header.get("protocol") == "openai":
        return Findings(completion=_completion(header, parts))
    if header.get("operation") != "infer" or card is None:
        return Findings()
    context, _, response = decode_parts(parts)
    if response.truncated:
        return Findings(unreadable="truncated")
    headers = orjson.loads(context)["response_headers"]
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


def _completion(header: dict[str, Any], parts: bytes) -> dict[str, Any] | None:
    """Of a stream the worker has said it already."""
    if "completion" in header:
        return None
    context, _, response = decode_parts(parts)
    headers = orjson.loads(context)["response_headers"]
    kept = b"" if response.truncated else response.kept
    return reader_of(header, None).completion(header.get("operation"), kept, headers)


def encode_leaf(
    kind: str,
    source: str,
    sequence: int,
    header: bytes,
    body: dict[str, Any] | None,
    findings: Findings,
) -> bytes:
    """Canonical JSON: sorted keys, with the record's own bytes as they were."""
    pieces = []
    if body is not None:
        pieces.append(b'"body":' + orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
    if findings.completion is not None:
        said = orjson.dumps(findings.completion, option=orjson.OPT_SORT_KEYS)
        pieces.append(b'"completion":' + said)
    if findings.decisions:
        pieces.append(
            b'"decisions":' + orjson.dumps(findings.decisions, option=orjson.OPT_SORT_KEYS)
        )
    pieces.append(b'"format":1')
    pieces.append(b'"kind":' + orjson.dumps(kind))
    pieces.append(b'"record":' + header)
    pieces.append(b'"sequence":%d' % sequence)
    pieces.append(b'"source":' + orjson.dumps(source))
    if findings.unreadable is not None:
        pieces.append(b'"unreadable":' + orjson.dumps(findings.unreadable))
    return b"{" + b",".join(pieces) + b"}"
