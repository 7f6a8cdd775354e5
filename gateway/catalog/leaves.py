"""Leaves as their consumers want them: whole, with what was too long for a leaf of a tile log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import orjson

from gateway.journal.record import decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader

log = logging.getLogger("headworks.leaves")


def whole(leaf: dict[str, Any], bodies: BodyReader) -> dict[str, Any]:
    """The leaf with decisions or report that lie beside the bodies, as far as they can be read."""
    place, record = leaf.get("decisions_at"), leaf["record"]
    try:
        if place is not None:
            leaf["decisions"] = orjson.loads(bodies.read(record["id"], place))
        elif leaf["kind"] == "window" and record.get("sealed"):
            context, *_ = decode_parts(bodies.read(record["id"], leaf["body"]))
            record["report"] = orjson.loads(context)["report"]
    except (ValueError, OSError) as error:
        log.warning("leaf of %s is not whole: %s", record["id"], error)
    return leaf


def read_whole(
    reader: LedgerReader, bodies: BodyReader, at_most: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Up to `at_most` further leaves, decoded and whole."""
    for number, text in reader.read(at_most):
        yield number, whole(orjson.loads(text), bodies)
