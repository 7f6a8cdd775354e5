"""The API's description holds for every route, and for what is really answered."""

from pathlib import Path
from types import SimpleNamespace

import httpx2
import orjson
import pytest
from site_of_rollouts import ANA, FILE, Site
from starlette.routing import Route

from gateway.console.api import make_app, read_filters
from gateway.console.openapi import document
from gateway.front import Front
from gateway.rollout.standing import standing, summary
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics

DOCUMENT = document()
KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict,
         "array": list, "null": type(None)}  # fmt: skip


def routes(tmp_path: Path) -> set[tuple[str, str]]:
    """Of the analyst and of the front door; neither is asked anything, so neither needs a world."""
    supervisor = SimpleNamespace(
        state=tmp_path, settings=Settings.model_construct(people=[]), metrics=Metrics("test")
    )
    apps = (make_app(None, None, None, tmp_path, None, None), Front(supervisor).app())
    return {
        (route.path.replace(":path", ""), method.lower())
        for app in apps
        for route in app.routes
        if isinstance(route, Route) and route.path.startswith("/api/v1/")
        for method in (route.methods or {"GET"}) - {"HEAD"}
    }


def test_every_route_is_described_and_no_other(tmp_path):
    """The document's paths and methods are those of the two applications that answer."""
    described = {
        (path, method) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert described == routes(tmp_path)


def test_filters_are_those_that_the_api_reads():
    """Each query parameter described is read; the refusal of an unknown one lists the same."""
    told = {parameter["name"] for parameter in
            DOCUMENT["paths"]["/api/v1/decisions"]["get"]["parameters"]}  # fmt: skip
    with pytest.raises(ValueError, match="known: ") as refusal:
        read_filters({"colour": "red"}, None)
    assert told == set(str(refusal.value).partition("known: ")[2].split(", "))


def faults(schema: dict, value, place: str = "") -> list[str]:
    """Where a value leaves its schema; the keywords are those that the document uses."""
    if "$ref" in schema:
        return faults(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]], value,
                      place)  # fmt: skip
    for word in ("oneOf", "anyOf"):
        if word in schema:
            tried = [faults(one, value, place) for one in schema[word]]
            return [] if [] in tried else sum(tried, [])
    kinds = schema.get("type", list(KINDS))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, KINDS[kind]) for kind in kinds):
        return [f"{place}: {value!r} is not {kinds}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: {value!r} is none of {schema['enum']}"]
    if isinstance(value, list):
        items = schema.get("items", {})
        return sum((faults(items, item, f"{place}[{n}]") for n, item in enumerate(value)), [])
    return object_faults(schema, value, place) if isinstance(value, dict) else []


def object_faults(schema: dict, value: dict, place: str) -> list[str]:
    known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
    found = [f"{place}.{name}: missing" for name in schema.get("required", ()) if name not in value]
    for name, item in value.items():
        if name in known:
            found += faults(known[name], item, f"{place}.{name}")
        elif other is False:
            found.append(f"{place}.{name}: not described")
        elif isinstance(other, dict):
            found += faults(other, item, f"{place}.{name}")
    return found


@pytest.mark.parametrize(
    ("described", "path", "status"),
    [
        ("/api/v1/status", "/api/v1/status", 200),
        ("/api/v1/analyst", "/api/v1/analyst", 200),
        ("/api/v1/models", "/api/v1/models", 200),
        ("/api/v1/decisions", "/api/v1/decisions", 200),
        ("/api/v1/decisions", "/api/v1/decisions?status=400", 200),
        ("/api/v1/decisions", "/api/v1/decisions?status=x", 400),
        ("/api/v1/decisions/{id}", "/api/v1/decisions/{denied}", 200),
        ("/api/v1/decisions/{id}", "/api/v1/decisions/{odd}", 200),
        ("/api/v1/decisions/{id}", "/api/v1/decisions/{refused}", 200),
        ("/api/v1/decisions/{id}", "/api/v1/decisions/x", 400),
        ("/api/v1/monitor/{model}", "/api/v1/monitor/mortgage", 200),
        ("/api/v1/monitor/{model}", "/api/v1/monitor/x", 404),
        ("/api/v1/shadow/{model}", "/api/v1/shadow/mortgage?since=1d", 200),
        ("/api/v1/shadow/{model}", "/api/v1/shadow/x", 404),
        ("/api/v1/shadow/{model}", "/api/v1/shadow/mortgage?since=never", 400),
        ("/api/v1/monitor/{model}/performance", "/api/v1/monitor/mortgage/performance", 200),
        ("/api/v1/monitor/{model}/performance", "/api/v1/monitor/x/performance", 404),
        ("/api/v1/monitor/{model}/performance", "/api/v1/monitor/mortgage/performance?a=1", 400),
        ("/api/v1/table", "/api/v1/table", 200),
        ("/api/v1/revisions", "/api/v1/revisions?limit=2", 200),
        ("/api/v1/revisions", "/api/v1/revisions?limit=x", 400),
        ("/api/v1/revisions/{revision}", "/api/v1/revisions/0", 200),
        ("/api/v1/revisions/{revision}", "/api/v1/revisions/nowhere", 404),
    ],
)
def test_answers_are_as_described(world, described, path, status):
    """A real answer has every field that is required and none that is not described."""
    answer = world.get(path.format(**vars(world)))
    schema = DOCUMENT["paths"][described]["get"]["responses"][str(status)]["content"]
    assert answer.status_code == status
    assert faults(schema["application/json"]["schema"], answer.json()) == []


def test_a_reload_is_as_described(world):
    """A reload of an unchanged file says that nothing changed, in the shape described."""
    answer = httpx2.post(world.address + "/api/v1/reload", timeout=30)
    schema = DOCUMENT["paths"]["/api/v1/reload"]["post"]["responses"]["200"]["content"]
    assert faults(schema["application/json"]["schema"], answer.json()) == []
    assert answer.json()["changed"] is False


def test_a_trace_is_as_described(world):
    """One that comes to a version, and one that is refused on its way."""
    schema = DOCUMENT["paths"]["/api/v1/routes/trace"]["post"]["responses"]["200"]["content"]
    for sent, reached in (
        ({"path": "/v2/models/mortgage/infer", "caller": "loans-app"}, "version"),
        ({"path": "/v2/models/mortgage/infer", "caller": "nobody"}, "refused"),
    ):
        answer = httpx2.post(world.address + "/api/v1/routes/trace", json=sent, timeout=30)
        assert faults(schema["application/json"]["schema"], answer.json()) == []
        assert reached in answer.json()


def test_the_document_is_served(world):
    """What `/api/openapi.json` answers is the document."""
    assert world.get("/api/openapi.json").json() == DOCUMENT


def test_a_rollout_is_as_described(tmp_path):
    """From before the first block to the end, whole and as a line of the list."""
    site = Site(tmp_path)
    shapes = DOCUMENT["components"]["schemas"]
    guards = "guards: [errors, latency_p95, {name: fairness, by: race}]"
    site.start(FILE.replace("guards: [errors]", guards))
    for act in (lambda: None, lambda: site.serve(5, a_second=150),
                lambda: site.steward.pause("trees", ANA, "x"),
                lambda: site.steward.abort("trees", ANA, "x")):  # fmt: skip
        act()
        told = orjson.loads(orjson.dumps(standing(site.attempt, site.clock.now, {})))
        assert faults(shapes["Rollout"], told) == []
        line = orjson.loads(orjson.dumps(summary(site.attempt, {})))
        assert faults(shapes["RolloutLine"], line) == []
    site.loop.run_until_complete(site.journal.close())
    site.loop.close()
