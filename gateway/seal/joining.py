"""Shadows meet their primaries: the comparison that goes into a shadow's leaf.

A primary's record comes before its shadows' in the same journal, so that a bounded buffer of the
newest primaries has it; what was sealed before a start is read from the ledger's tail, once, when a
shadow asks for it. A primary that is in neither is `primary_missing`, and the leaf says so. Bodies
are kept only where no score was read; one that the buffer has no room for is read from the store.

Where the primary's own version was asked a second time (`noise`), the leaf that completes a triple
of first answer, second answer and shadow's answer says so: `triples` has, by shadow, whether the
shadow alone differed and whether the second answer alone did. McNemar's test needs no more. A
version in the process whose graph never draws needs no second call: its second answer is its first.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

import orjson

from gateway.artifacts import Artifacts, draws
from gateway.card import Card
from gateway.comparison.answer import Answer, Body, compare
from gateway.comparison.outcome import not_compared
from gateway.journal.record import decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader
from gateway.protocol.reader import reader_of
from gateway.seal.leaf import Findings
from gateway.table import Model

PRIMARIES_AT_MOST = 32_768
"""At 2,700 exchanges a second those of 12 s: a shadow's queue and its timeout."""
BODIES_BYTES_AT_MOST = 32 * 1024**2
SCORED = frozenset({"auto", "decision", "number"})
log = logging.getLogger("headworks.joining")


@dataclass(slots=True)
class Sealed:
    """An exchange as the sealer has read it; `told` is what its leaf says beside the record."""

    header: dict[str, Any]
    told: dict[str, Any]
    model: Model | None
    card: Card | None = None
    findings: Findings = Findings()
    body: Body | None = None


@dataclass(slots=True)
class Primary:
    """An answer that was given; thousands are held. `body`: kept in memory; `place`: where else it
    lies, if it may be wanted. `agreed`: by shadow, of those compared; `steady`: whether the same
    version's second answer agreed."""

    id: str
    version: str
    arm: str
    protocol: str
    operation: str
    status: int
    error: str | None
    card: Card | None
    model: Model
    decisions: Sequence[dict[str, Any]]
    unreadable: str | None
    place: dict[str, Any] | None = None
    body: Body | None = None
    agreed: dict[str, bool] | None = None
    steady: bool | None = None

    @staticmethod
    def of(
        header: Mapping[str, Any], card: Card | None, model: Model,
        decisions: Sequence[dict[str, Any]], told: Mapping[str, Any],
    ) -> Primary:  # fmt: skip
        """`told`: what its leaf says beside the record."""
        found = Primary(
            header["id"], _word(header, "version"), _word(header, "arm"),
            _word(header, "protocol"), _word(header, "operation"), header["status"],
            header.get("error"), card, model, decisions, told.get("unreadable"),
        )  # fmt: skip
        if found.needs_body:
            found.place = told.get("body")
        return found

    @property
    def needs_body(self) -> bool:
        """Whether scores do not do: there are none, or not of every version, or not wanted."""
        scored = self.decisions and all(version.card for version in self.model.versions.values())
        return not scored or self.model.compare["kind"] not in SCORED


class Joining:
    def __init__(
        self, state: Path, bodies: BodyReader, model: Callable[[dict[str, Any]], Model | None],
        begun: int,
    ) -> None:  # fmt: skip
        """`model`: of a record's header; `begun`: the first leaf of this start."""
        self._state, self._bodies, self._model = state, bodies, model
        self._artifacts = Artifacts(state)
        self._draws: dict[str, bool] = {}
        self._before: int | None = begun
        self._primaries: OrderedDict[str, Primary] = OrderedDict()
        self._held: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0

    def take(self, sealed: Sealed) -> dict[str, Any] | None:
        """What a shadow's leaf says of it and its primary; None: it is no shadow's."""
        if sealed.header.get("arm") == "shadow":
            return self._compared(sealed)
        if sealed.model is not None and any(rule.shadows for rule in sealed.model.rules):
            decisions = sealed.findings.decisions
            primary = Primary.of(sealed.header, sealed.card, sealed.model, decisions, sealed.told)
            self._keep(primary, sealed.body)
        return None

    def _keep(self, primary: Primary, body: Body | None) -> None:
        self._primaries[primary.id] = primary
        if len(self._primaries) > PRIMARIES_AT_MOST:
            oldest, _ = self._primaries.popitem(last=False)
            self._bytes -= self._held.pop(oldest, 0)
        if body is None or not primary.needs_body:
            return
        primary.body = body
        self._held[primary.id] = len(body[0].kept)
        self._bytes += len(body[0].kept)
        while self._bytes > BODIES_BYTES_AT_MOST:
            oldest, size = self._held.popitem(last=False)
            self._primaries[oldest].body = None
            self._bytes -= size

    def _compared(self, sealed: Sealed) -> dict[str, Any]:
        header, model = sealed.header, sealed.model
        primary = self._find(str(header.get("primary")))
        if primary is None or model is None:
            return not_compared("primary_missing").to_json()
        one, other = self._answer(primary), _shadows(sealed, model)
        try:
            found = compare(one, other, model.compare)
        except Exception:  # a mistake of ours concerns one exchange, never the next
            log.exception("exchange %s cannot be compared", header["id"])
            found = not_compared("internal_error")
        told = found.to_json()
        told["of"] = {"version": primary.version, "arm": primary.arm}
        if header.get("noise"):
            told["noise"] = True
        if found.why is None:
            if primary.steady is None and self._is_steady(primary):
                primary.steady = True
            told |= _triples(primary, header, found.agree)
        return told

    def _is_steady(self, primary: Primary) -> bool:
        """Whether the same input always has the same answer."""
        version = primary.model.versions.get(primary.version)
        if version is None or version.endpoints or version.artifact is None:
            return False
        if version.artifact not in self._draws:
            graph = self._artifacts.path(version.artifact) / "model.onnx"
            try:
                self._draws[version.artifact] = draws(graph)
            except (OSError, ValueError):  # gone, or empty
                return False
        return not self._draws[version.artifact]

    def _answer(self, primary: Primary) -> Answer:
        def read() -> Body | None:
            return primary.body or self._stored(primary)

        reader = reader_of({"protocol": primary.protocol}, primary.model)
        return Answer(
            primary.status, primary.error, primary.operation, primary.card, reader,
            primary.decisions, primary.unreadable, read,
        )  # fmt: skip

    def _stored(self, primary: Primary) -> Body | None:
        """None: erased, gone, or not written yet."""
        if primary.place is None:
            return None
        try:
            parts = self._bodies.read(primary.id, primary.place)
            context, _, response = decode_parts(parts)
            return response, orjson.loads(context).get("response_headers", ())
        except (ValueError, OSError):
            return None

    def _find(self, identity: str) -> Primary | None:
        found = self._primaries.get(identity)
        if found is None and self._before is not None:
            self._recall(self._before)
            self._before = None
            found = self._primaries.get(identity)
        return found

    def _recall(self, before: int) -> None:
        """Put the primaries that were sealed before this start in front of the newer ones."""
        newer, self._primaries = self._primaries, OrderedDict()
        begin = max(0, before - PRIMARIES_AT_MOST + len(newer))
        reader = LedgerReader(self._state, begin)
        for _, text in reader.read(before - begin):
            if b'"kind":"exchange"' in text and b'"arm":"shadow"' not in text:
                self._recalled(orjson.loads(text))
        reader.close()
        self._primaries.update(newer)

    def _recalled(self, leaf: dict[str, Any]) -> None:
        header, model = leaf["record"], self._model(leaf["record"])
        if model is None or not any(rule.shadows for rule in model.rules):
            return
        version = model.versions.get(header.get("version", ""))
        decisions = leaf.get("decisions", ())
        if (place := leaf.get("decisions_at")) is not None:
            try:
                decisions = orjson.loads(self._bodies.read(header["id"], place))
            except (ValueError, OSError):
                return
        card = version.card if version is not None else None
        self._primaries[header["id"]] = Primary.of(header, card, model, decisions, leaf)


def _word(header: Mapping[str, Any], name: str) -> str:
    """One object for the same word of thousands of headers."""
    return intern(str(header.get(name) or ""))


def _shadows(sealed: Sealed, model: Model) -> Answer:
    header = sealed.header
    return Answer(
        header["status"], header.get("error"), header.get("operation"), sealed.card,
        reader_of(header, model), sealed.findings.decisions, sealed.told.get("unreadable"),
        lambda: sealed.body,
    )  # fmt: skip


def _triples(primary: Primary, header: dict[str, Any], agree: bool) -> dict[str, Any]:
    """What this comparison completes."""
    if header.get("noise"):
        primary.steady = agree
        completed = primary.agreed or {}
    else:
        completed = {header["version"]: agree}
        primary.agreed = (primary.agreed or {}) | completed
    if primary.steady is None or not completed:
        return {}
    steady = primary.steady
    return {
        "triples": {
            version: [int(steady and not agreed), int(agreed and not steady)]
            for version, agreed in completed.items()
        }
    }
