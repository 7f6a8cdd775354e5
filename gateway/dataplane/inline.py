"""Reasons beside an answer, for callers who need them in it (`explain.inline`).

The plan is the analyst's (`attribution/plan.py`): made when a revision with a new artifact or
background comes into force, read here as soon as it lies there. Without one, or where reasons would
come too late, the answer goes without them and says why: they never delay it beyond its time, and
never fail it. What was given is in the record; the explanation that the ledger keeps is made by the
analyst later, by the same code on the same tensor.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from gateway.attribution.plan import Plan, decode
from gateway.attribution.reasons import reasons
from gateway.card import Card
from gateway.exchange import Headers

HEADER_BYTES = 4096
"""Longer reasons, of many rows, are left to the API: proxies between limit heads."""
LOOK_NS = 10**9
log = logging.getLogger("headworks.inline")


@dataclass(frozen=True, slots=True)
class Given:
    """Codes of the reasons of each row, or why there are none."""

    codes: list[list[str]]
    why: str | None = None
    micros: int = 0

    def headers(self) -> Headers:
        if self.why is not None:
            return [(b"x-headworks-not-explained", self.why.encode())]
        return [(b"x-headworks-reasons", _joined(self.codes))]

    def to_json(self) -> dict[str, Any]:
        if self.why is not None:
            return {"why": self.why}
        return {"codes": self.codes, "us": self.micros}


def _joined(codes: list[list[str]]) -> bytes:
    """Codes by comma, rows by semicolon; a row without an adverse outcome is empty."""
    return ";".join(",".join(row) for row in codes).encode()


class Inline:
    """One version's reasons."""

    def __init__(
        self, path: Path, card: Card, settings: Mapping[str, Any], patience_s: float
    ) -> None:
        """`path`: where the plan is, or will be. `patience_s`: how long an answer may take."""
        self._path, self._card, self._settings = path, card, settings
        self._patience_ns = int(patience_s * 1e9)
        self._plan: Plan | None = None
        self._session: Any = None
        self._loading: asyncio.Future[None] | None = None
        self._looked_ns = 0
        self._ns_a_row = 0.0
        self.load()

    def tick(self, now_ns: int) -> None:
        """In the event loop: look for a plan that is not there yet, once a second."""
        due = self._plan is None and now_ns - self._looked_ns > LOOK_NS
        if due and (self._loading is None or self._loading.done()):
            self._looked_ns = now_ns
            if self._path.exists():
                self._loading = asyncio.get_running_loop().run_in_executor(None, self.load)

    def load(self) -> None:
        """Open the plan, if it is there; one that cannot be read is as good as none."""
        try:
            plan = decode(self._path.read_bytes())
            if plan.form is not None:
                self._session = _session(plan.model)
        except FileNotFoundError:
            return
        except Exception as error:
            log.error("plan %s is not read: %s", self._path.name, error)
            plan = Plan(unavailable="no_plan")
        self._plan = plan

    def explain(self, feeds: Mapping[str, Any], scores: list[float], spent_ns: int) -> Given:
        """`feeds`: what the model was given; `scores`: as the answer says them, one a row;
        `spent_ns`: how long the exchange has lasted."""
        if (plan := self._plan) is None:
            return Given([], "preparing")
        if plan.form is None:
            return Given([], plan.unavailable)
        if len(scores) > self._settings["rows_at_most"]:
            return Given([], "batch_limit")
        if spent_ns + self._ns_a_row * len(scores) > self._patience_ns:
            return Given([], "deadline")
        started = time.perf_counter_ns()
        try:
            codes = self._codes(plan, feeds, scores)
        except Exception as error:
            log.error("plan %s failed: %s", self._path.name, error)
            return Given([], "failed")
        took = time.perf_counter_ns() - started
        self._ns_a_row = took / max(len(scores), 1)
        if len(_joined(codes)) > HEADER_BYTES:
            return Given([], "too_long")
        return Given(codes, micros=took // 1000)

    def _codes(
        self, plan: Plan, feeds: Mapping[str, Any], scores: list[float]
    ) -> list[list[str]]:  # fmt: skip
        words = self._card.outputs.outcome
        if words is None:
            return [[] for _ in scores]
        outcomes = [words.of(score) for score in scores]
        if words.adverse not in outcomes:
            return [[] for _ in scores]
        values = self.values(plan, feeds)
        return [
            [reason.code for reason in reasons(
                self._card, plan.features, row, outcome, self._settings["reasons"])]
            for row, outcome in zip(values, outcomes)
        ]  # fmt: skip

    def values(self, plan: Plan, feeds: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """Attributions [n, features]."""
        assert plan.form is not None
        if plan.matrix in feeds:
            return plan.form.values(feeds[plan.matrix])
        return plan.form.values(self._session.run([plan.matrix], feeds)[0])


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
