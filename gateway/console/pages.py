"""The live page: three HTML pages, each drawn from the same documents that its JSON twin answers.

Two invariants. A page never knows more than its twin: it asks the API's own handlers and adds only
the card's words. And what a caller sent is text, never markup: autoescape is on for every template,
no template says `safe`, no script or style is inline, and the policy sent with each page would stop
one that slipped through.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

import orjson
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway.card import Card
from gateway.clock import isoformat
from gateway.console.governed import check_purpose
from gateway.wording import plain_text

if TYPE_CHECKING:
    from gateway.console.api import Api
    from gateway.console.tables import Tables

NEWEST = 25
"""Decisions listed on the first page when the address does not say how many."""

HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
"""Pages hold people's values: nothing foreign is loaded, framed or told, nothing is cached."""

FILTERS = ("model", "version", "arm", "rule", "outcome")
REACHED = ("model", "version", "artifact", "arm", "rule", "unit", "primary")
"""Parts of a record that an exchange has only if it came so far: a refused one lacks them."""

GOOD = frozenset({"ok", "green", "compared", "safe", "promoted", "running", "shadowing", "baking"})
WARNING = frozenset({"watch", "yellow", "inconclusive", "held", "draft", "approved"})
BAD = frozenset({"drift", "fault", "breach", "red", "worse", "rolled_back", "aborted"})


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One feature of one decision: what was sent, and how far it moved the score.

    `value` is absent where the body cannot be read, `attribution` where there is no explanation
    or the model does not read the feature.
    """

    name: str
    meaning: str
    unit: str
    value: Any = None
    attribution: float | None = None
    standard_error: float | None = None


class Pages:
    def __init__(self, api: Api, tables: Tables) -> None:
        self.api, self.tables = api, tables
        self._templates = Environment(
            loader=PackageLoader("gateway.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "figure": figure, "percent": percent, "p_value": p_value, "moment": isoformat,
            "said": plain_text, "tone": tone, "query": urlencode, "logarithm": math.log,
        }  # fmt: skip

    async def home(self, request: Request) -> Response:
        asked = dict(parse_qsl(request.url.query))
        listed = Request(
            {**request.scope, "query_string": urlencode({"limit": NEWEST} | asked).encode()}
        )
        status, found = read(await self.api.decisions(listed))
        if status != 200:
            return self._page("error.html", status, found | {"twin": "/api/v1/analyst"})
        models = read(await self.api.models(request))[1]["models"]
        for model in models:
            model |= await asyncio.to_thread(self.api.monitored, model["name"])
        document = {
            "models": models, "decisions": found["decisions"], "asked": asked,
            "choices": choices(models, asked), "twin": "/api/v1/analyst",
        }  # fmt: skip
        return self._page("home.html", 200, document)

    async def model(self, request: Request) -> Response:
        status, found = read(await self.api.monitor(request))
        if status == 200:
            status, performed = read(await self.api.performance(request))
            found = {**found, "performance": performed} if status == 200 else performed
        document = found | {"twin": request.url.path.replace("/models/", "/api/v1/monitor/", 1)}
        return self._page("model.html" if status == 200 else "error.html", status, document)

    async def shadow(self, request: Request) -> Response:
        status, found = read(await self.api.shadows(request))
        document = found | {"twin": f"/api/v1{request.url.path}"}
        return self._page("shadow.html" if status == 200 else "error.html", status, document)

    async def table(self, request: Request) -> Response:
        """A revision: its rules, what it changed, and the others. The current one has a form."""
        named = request.path_params.get("revision", "current")
        against = request.query_params.get("against")
        status, found = read(await self.tables.told(lambda: self.tables.compared(named, against)))
        twin = f"/api/v1/revisions/{named}" + (f"?against={against}" if against else "")
        if status != 200:
            return self._page("error.html", status, found | {"twin": twin})
        history = read(await self.tables.told(lambda: {"revisions": self.tables.listed({})}))[1]
        rules = {name: {"rules": model["rules"]} for name, model in found["models"].items()}
        text = yaml.safe_dump({"models": rules}, sort_keys=False, allow_unicode=True, width=100)
        told = {"twin": twin, "named": named, "text": text if named == "current" else None}
        return self._page("table.html", 200, found | history | told)

    async def rollouts(self, request: Request) -> Response:
        status, found = await self.api.governor.read("/rollouts")
        page = "rollouts.html" if status == 200 else "error.html"
        return self._page(page, status, found | {"twin": "/api/v1/rollouts"})

    async def rollout(self, request: Request) -> Response:
        path = f"/rollouts/{quote(request.path_params['name'], safe='')}"
        status, found = await self.api.governor.read(path)
        twin = {"twin": f"/api/v1{path}"}
        if status != 200:
            return self._page("error.html", status, found | twin)
        _, history = await self.api.governor.read(f"{path}/history")
        blank = dict.fromkeys(("move", "event", "phase", "why")) | {"verdicts": []}
        events = [blank | event
                  for event in history.get("events", ())]  # fmt: skip
        own = {"self_from": found["from"], "self_evidence": found["evidence"], "events": events}
        return self._page("rollout.html", 200, found | own | twin)

    async def decision(self, request: Request) -> Response:
        return await self._decision(request, await self.api.decision(request))

    async def reveal(self, request: Request) -> Response:
        """The same page with what was sent, after the leaf that says who reads it and why."""
        try:
            purpose = check_purpose(dict(parse_qsl((await request.body()).decode())).get("purpose"))
        except ValueError as error:
            told = {"error": str(error), "code": "bad_parameter", "twin": "/api/openapi.json"}
            return self._page("error.html", 400, told)
        return await self._decision(request, await self.api.revealed(request, purpose))

    async def _decision(self, request: Request, answer: Response) -> Response:
        status, found = read(answer)
        twin = f"/api/v1{request.url.path}"
        if status != 200:
            return self._page("error.html", status, found | {"twin": twin})
        card = await asyncio.to_thread(self._card, found["record"])
        document = {
            "card": card, "rows": feature_rows(found, card), "twin": twin,
            "raw": orjson.dumps(found, option=orjson.OPT_INDENT_2).decode(),
            **found, "record": dict.fromkeys(REACHED) | found["record"],
        }  # fmt: skip
        return self._page("decision.html", 200, document)

    def _card(self, record: dict[str, Any]) -> Card | None:
        if not all(record.get(key) for key in ("revision", "model", "version")):
            return None
        table = self.api.tables.load(record["revision"])
        return table.models[record["model"]].versions[record["version"]].card

    def _page(self, template: str, status: int, document: dict[str, Any]) -> Response:
        text = self._templates.get_template(template).render(status=status, **document)
        return HTMLResponse(text, status, HEADERS)


def read(answer: Response) -> tuple[int, dict[str, Any]]:
    """What the twin answers: its status and its document."""
    document: dict[str, Any] = orjson.loads(answer.body)
    return answer.status_code, document


def choices(models: list[dict[str, Any]], asked: dict[str, str]) -> dict[str, list[str]]:
    """Values that each filter offers: those that occur, and the one asked for."""
    counts = [count for model in models for count in model["counts"]]
    offered = {
        "model": {model["name"] for model in models},
        "version": {version for model in models for version in model["versions"]},
        "arm": {count["arm"] for count in counts},
        "rule": {rule["name"] for model in models for rule in model["rules"]},
        "outcome": {outcome for count in counts for outcome in count["outcomes"] if outcome},
    }
    return {
        name: sorted(offered[name] | ({asked[name]} if asked.get(name) else set()))
        for name in FILTERS
    }


def feature_rows(document: dict[str, Any], card: Card | None) -> list[FeatureRow]:
    """Strongest attribution first, then what was sent and not read by the model."""
    explanation = document["explanation"] or {}
    attributions: dict[str, float] = explanation.get("attributions", {})
    errors = dict(zip(attributions, explanation.get("standard_errors", ())))
    values: dict[str, Any] = document["features"] or {}
    told = {feature.name: feature for feature in card.features} if card else {}
    rows = [
        FeatureRow(
            name,
            told[name].meaning if name in told else "",
            told[name].unit if name in told else "",
            values.get(name),
            attributions.get(name),
            errors.get(name),
        )
        for name in dict.fromkeys([*attributions, *values])
    ]
    return sorted(rows, key=lambda row: -abs(row.attribution or 0.0))


def figure(value: Any) -> str:
    """A number as people read it: four significant digits, thousands apart, minus as a minus."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 1e15)
    text = f"{value:,.0f}" if whole else f"{value:,.4g}"
    return text.replace("-", "−")


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.3g} %".replace("-", "−")


def p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def tone(state: str) -> str:
    """Class of a state's colour; the word itself always stands beside it."""
    for word, states in (("good", GOOD), ("warning", WARNING), ("bad", BAD)):
        if state in states:
            return word
    return "silent"
