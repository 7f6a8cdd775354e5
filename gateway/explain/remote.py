"""Explaining a version that is served elsewhere and whose model is not held: by asking it.

Off unless `explain.remote` says how much. Of the exchanges a seeded sample (by the exchange's id,
so that everybody draws the same) is explained by coalitions or permutations, as any model that
cannot be read, each score asked of the upstream, by v2. The calls are no exchanges: they have
`x-headworks-traffic: explain`, pass no rule, and are in no record and no statistic but in budget
and `calls` of the explanation that they made. They are bounded three ways: rows a second, the time
of one explanation, and a fifth of the analyst's time; what is over is not explained, and says so.

An upstream's scores may change between two calls, so such an explanation cannot be made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
import orjson

from gateway.card import Card
from gateway.declaration import MILLION
from gateway.explain.attribution import Attributions, Columns, Floats
from gateway.explain.explainer import Explainer
from gateway.explain.rows import count, take
from gateway.explain.tensors import feeds
from gateway.protocol import v2
from gateway.protocol.message import Message
from gateway.protocol.tensor import Unreadable
from gateway.table import Model, Version

Ask: TypeAlias = Callable[[str, bytes | None, float], bytes]
"""URL, body (None: GET) and seconds left -> the body of a 200. OSError for anything else."""

ROWS_A_CALL = 256
CANDIDATES_AT_MOST = 400
"""Rows of the background file that the upstream is asked about, to choose the background."""
SHARE_OF_TIME = 5
BACK_OFF_NS = 30 * 10**9
TYPES = {"FP32": "tensor(float)", "FP64": "tensor(double)", "INT64": "tensor(int64)",
         "INT32": "tensor(int32)", "BOOL": "tensor(bool)", "BYTES": "tensor(string)"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Input:
    name: str
    type: str
    datatype: str


class Upstream:
    """Scores by calls; a scorer as `Explainer` takes it. `deadline_ns`: when asking ends."""

    score_type: np.dtype[Any] = np.dtype(np.float64)

    def __init__(
        self, card: Card, url: str, ask: Ask, now: Callable[[], int], deadline_ns: int
    ) -> None:
        self._card, self._url, self._ask, self._now = card, url, ask, now
        self.deadline_ns = deadline_ns
        self.calls = self.rows = 0
        told = self._call(url, None)
        try:
            self._inputs = [
                Input(item["name"], TYPES[item["datatype"]], item["datatype"])
                for item in orjson.loads(told)["inputs"]
            ]
        except (ValueError, KeyError, TypeError):
            words = "names no `inputs`, or of a datatype that is not asked"
            raise ConnectionError(f"what GET {url} says of the model {words}") from None

    def scores(self, rows: Columns) -> Floats:
        """[n]. OSError: no answer in time, or none that is read."""
        places = np.arange(count(rows))
        parts = [places[at : at + ROWS_A_CALL] for at in range(0, len(places), ROWS_A_CALL)]
        return np.concatenate([self._scores(take(rows, part)) for part in parts])

    def _scores(self, rows: Columns) -> Floats:
        fed = feeds(self._card, self._inputs, rows)
        inputs = [
            {"name": each.name, "shape": list(fed[each.name].shape), "datatype": each.datatype,
             "data": fed[each.name].ravel().tolist()}
            for each in self._inputs
        ]  # fmt: skip
        answer = self._call(f"{self._url}/infer", orjson.dumps({"inputs": inputs}))
        self.rows += count(rows)
        try:
            found = v2.read_scores(self._card, {}, Message.of(answer, ()))
        except Unreadable as error:
            raise ConnectionError(f"its answer is not read: {error}") from None
        if len(found) != count(rows):
            raise ConnectionError(f"{len(found)} scores for {count(rows)} rows")
        return np.array(found)

    def _call(self, url: str, body: bytes | None) -> bytes:
        left = (self.deadline_ns - self._now()) / 1e9
        if left <= 0:
            raise TimeoutError("the time for one explanation is over")
        self.calls += 1
        return self._ask(url, body, left)


class Remote:
    """The explainers of versions that are asked, and what may still be asked."""

    def __init__(self, ask: Ask, now: Callable[[], int]) -> None:
        """`now`: nanoseconds of a clock that does not run backwards."""
        self._ask, self._now = ask, now
        self._explainers: dict[tuple[str, str, str], tuple[Upstream, Explainer]] = {}
        self._free_ns: dict[tuple[str, str], int] = {}

    def refusal(self, model: Model, version: Version, exchange: str) -> str | None:
        """Why this exchange is not explained by calls; None: it may be."""
        settings = model.explain.get("remote")
        if settings is None or not version.endpoints or version.card is None:
            return "no_artifact"
        if model.background is None:
            return "no_background"
        if model.protocol != "v2" or model.mapping.get("layout", "columns") != "columns":
            return "remote_protocol"
        if version.tls is not None or version.auth is not None:
            return "remote_credentials"
        if draw(exchange) >= settings["share"]:
            return "not_sampled"
        if self._now() < self._free_ns.get((model.name, version.name), 0):
            return "remote_budget"
        return None

    def explain(
        self, model: Model, version: Version, background: Callable[[], Columns], rows: Columns,
        scores: Floats,
    ) -> tuple[Attributions, dict[str, int]]:  # fmt: skip
        """Attributions, and what they cost. OSError: the upstream did not answer in time; it is
        left alone for a while."""
        settings = model.explain["remote"]
        begun = self._now()
        deadline = begun + int(settings["timeout"] * 1e9)
        key = (model.name, version.name)
        self._free_ns[key] = deadline + BACK_OFF_NS
        upstream, explainer = self._explainer(model, version, background, deadline)
        found = explainer.explain(rows, scores)
        now, calls = self._now(), upstream.calls
        paid = int(upstream.rows / settings["rows_a_second"] * 1e9)
        self._free_ns[key] = max(begun + paid, now + (SHARE_OF_TIME - 1) * (now - begun))
        return found, {"calls": calls}

    def _explainer(
        self, model: Model, version: Version, background: Callable[[], Columns], deadline_ns: int
    ) -> tuple[Upstream, Explainer]:
        """Made at its first use: what choosing the background costs is paid for too."""
        assert model.background is not None
        assert version.card is not None
        key = (model.name, version.name, model.background)
        if key in self._explainers:
            upstream = self._explainers[key][0]
            upstream.deadline_ns, upstream.calls, upstream.rows = deadline_ns, 0, 0
        else:
            url = f"{version.endpoints[0].rstrip('/')}/v2/models/{model.name}"
            upstream = Upstream(version.card, url, self._ask, self._now, deadline_ns)
            rows = background()
            some = take(rows, np.arange(min(count(rows), CANDIDATES_AT_MOST)))
            explainer = Explainer(version.card, url.encode(), some, upstream)
            self._explainers[key] = upstream, explainer
        return self._explainers[key]


def draw(exchange: str) -> int:
    """Of a million; the same for everybody who knows the id."""
    digest = blake2b(exchange.encode(), digest_size=8, key=b"headworks explain remote").digest()
    return int.from_bytes(digest) * MILLION >> 64
