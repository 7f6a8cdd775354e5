"""The admin API as an OpenAPI 3.1 document: every route under `/api/v1`, whoever answers it.

Window reports are derived from the classes that make them, so they cannot differ; the other shapes
are written here, and a test holds real answers against them.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from gateway import __version__
from gateway.catalog.queries import LIMIT_MAX, Filters
from gateway.console.rolloutapi import rollout_paths, rollout_schemas
from gateway.console.schema import (
    FLAG,
    MOMENT,
    NUMBER,
    NUMBER_OR_NULL,
    SCHEMAS,
    TEXT,
    TEXT_OR_NULL,
    WHOLE,
    Schema,
    fields,
    in_path,
    in_query,
    keyed,
    listed,
    may_be_null,
    of,
    operation,
    refer,
    response,
    sent,
)
from gateway.console.tableschema import table_paths, table_schemas
from gateway.monitor.disagreement import ShadowReport
from gateway.monitor.outcomes import KeyOutcomes
from gateway.monitor.pairs import PairReport
from gateway.monitor.performance import CohortReport, PairedAccuracy
from gateway.monitor.report import WindowReport


def document() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headworks admin API",
            "version": __version__,
            "description": "What was decided, why, by which version, and how it drifts. Where the "
            "configuration names people, each request needs a person's bearer token.",
        },
        "paths": paths(),
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"person": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"person": []}],
    }


def paths() -> dict[str, Any]:
    moment = "an ISO time, UTC unless it says otherwise, or an age: 90s, 15m, 2h, 7d"
    since = in_query("since", f"Arrived then or later: {moment}.")
    filters = [
        in_query("model", "Its name."),
        in_query("version", "Its name."),
        in_query("arm", "What the version was: stable, canary, shadow, forced and so on."),
        in_query("rule", "The routing rule that chose."),
        in_query("outcome", "The word of the model's card; with a status, the error code."),
        in_query("status", "HTTP status; one other than 200 finds refused exchanges.", WHOLE),
        since,
        in_query("until", f"Arrived before: {moment}."),
        in_query("window", "In that monitoring window, as mortgage/v1/stable/7."),
        in_query("limit", "Rows at most.",
                 WHOLE | {"default": Filters.__dataclass_fields__["limit"].default,
                          "maximum": LIMIT_MAX}),
    ]  # fmt: skip
    identity = in_path(
        "id", "Exchange id, a slash and the row; `/0` may be left out.",
        "01a20a0b-a594-7dfa-bc2f-0c054bf2ea7b/0",
    )  # fmt: skip
    model = in_path("model", "Its name.", "mortgage")
    reload = refer("Reload")
    changed = operation("reload", "Bring the configuration file into force.", reload,
                        requestBody={"content": {"application/json": {"schema": of(
                            "object", properties={"author": TEXT, "reason": TEXT})}}})  # fmt: skip
    changed["responses"]["422"] = response("The file has problems; nothing changed.", reload)
    return {
        "/api/v1/status": {
            "get": operation("status", "The whole at one look.", refer("Status"))
        },
        "/api/v1/reload": {"post": changed},
        "/api/v1/analyst": {
            "get": operation("analyst", "How far the analyst has followed the ledger.",
                             refer("Analyst"))
        },
        "/api/v1/models": {
            "get": operation("models", "Models, versions and rules of the revision in force.",
                             fields(models=listed(refer("Model"))))
        },
        "/api/v1/decisions": {
            "get": operation("decisions", "The newest decisions that all filters hold for.",
                             fields(decisions=listed(refer("Row"))), 400, parameters=filters)
        },
        "/api/v1/decisions/{id}": {
            "get": operation("decision", "One decision, whole.", refer("Decision"), 400, 404,
                             parameters=[identity])
        },
        **reading_paths(identity),
        **custody_paths(),
        **table_paths(),
        **monitor_paths(model),
        **alert_paths(),
        "/api/v1/shadow/{model}": {
            "get": operation("shadow", "How shadows' answers compare with those given: coverage, "
                             "raw, noise and corrected disagreement, flips, segments, examples.",
                             fields(model=TEXT, shadows=listed(refer("ShadowReport"))), 400, 404,
                             parameters=[model, since])
        },
        **rollout_paths(),
        "/api/v1/monitor/{model}/performance": {
            "get": operation("performance", "Labels by day of prediction: coverage, accuracy, area "
                             "under the curve, Brier score, calibration; and what they would be "
                             "by the scores alone.", refer("Performance"), 400, 404,
                             parameters=[model, since])
        },
    }  # fmt: skip


def monitor_paths(model: Schema) -> dict[str, Any]:
    return {
        "/api/v1/monitor/{model}": {
            "get": operation("monitor", "Counts, shadows' agreement and the newest window of each "
                             "series.", refer("Monitor"), 404, parameters=[model])
        },
        "/api/v1/windows/{id}": {
            "get": operation("window", "One closed window: what it was of, its counts, what was "
                             "said of it, and where its decisions are.", refer("Window"), 404,
                             parameters=[in_path("id", "Model, version, arm, number.",
                                                 "mortgage/v1/stable/7")])
        },
    }  # fmt: skip


def reading_paths(identity: Schema) -> dict[str, Any]:
    return {
        "/api/v1/decisions/{id}/reveal": {
            "post": operation("reveal", "One decision with what was sent; a leaf says who read it.",
                              refer("Decision"), 400, 404, parameters=[identity],
                              requestBody=sent(
                                  purpose=of("string", "5 to 500 characters."),
                                  parts=of("boolean", "The sealed parts too, as base64.")))
        },
        "/api/v1/decisions/{id}/reproduce": {
            "post": operation("reproduce", "The same artifact on the same input: answer and "
                              "explanation again; a leaf says that it was read.",
                              refer("Reproduction"), 400, 404, parameters=[identity])
        },
        "/api/v1/catalog/rebuild": {
            "post": operation("rebuild_catalog", "Make the catalog again from the ledger.",
                              fields(leaves=WHOLE), 409)
        },
        "/api/v1/exports": {
            "post": operation("export", "Write a model's decisions of a day as a Parquet file.",
                              fields(id=TEXT, file=TEXT_OR_NULL, rows=WHOLE, sha256=TEXT_OR_NULL),
                              400, requestBody=sent(
                                  model=TEXT, day=of("string", "UTC."), values=FLAG,
                                  folder=of("string", "Absolute, on the gateway's host."),
                                  purpose=of("string", "5 to 500 characters.")))
        },
    }  # fmt: skip


def alert_paths() -> dict[str, Any]:
    flag = of("boolean", "Those that are over too.")
    filters = [in_query("model", "Its name."), in_query("resolved", "true or false.", flag),
               in_query("limit", "Alerts at most.", WHOLE)]  # fmt: skip
    alert = of("string", "Its id.")
    said = fields(leaf=of("integer", "The leaf that says so; the alert follows."))
    return {
        "/api/v1/alerts": {
            "get": operation("alerts", "The newest word on each alert.",
                             fields(alerts=listed(refer("Alert"))), 400, parameters=filters)
        },
        "/api/v1/monitor/{model}/backtest": {
            "post": operation("backtest", "A model's past judged by other settings, beside what "
                              "was said; a leaf says that it was read.",
                              refer("Backtest"), 400, 404, 409,
                              parameters=[in_path("model", "Its name.", "mortgage")],
                              requestBody=sent(
                                  since=of("string", "As 7d, or a time."),
                                  set=of("object", "Keys of `monitor` and values, as texts.")))
        },
        "/api/v1/alerts/acknowledge": {
            "post": operation("acknowledge_alert", "Somebody has seen it.", said, 400, 404,
                              requestBody=sent(alert=alert))
        },
        "/api/v1/alerts/mute": {
            "post": operation("mute_alert", "Send nothing of it for a while.", said, 400, 404,
                              requestBody=sent(alert=alert, reason=TEXT,
                                               **{"for": of("string", "As 2h; 0s ends it.")}))
        },
    }  # fmt: skip


def custody_paths() -> dict[str, Any]:
    reason = of("string", "5 to 500 characters, for the ledger.")
    erased = fields(
        numbers=listed(WHOLE), keys=WHOLE, blobs=WHOLE, bytes=WHOLE, files=listed(TEXT),
        exports=listed(TEXT), exports_perhaps=listed(TEXT), by=TEXT, reason=TEXT, leaf=WHOLE,
        deferred=FLAG,
    )  # fmt: skip
    return {
        "/api/v1/subjects/find": {
            "post": operation("find_subject", "A subject's token and what is held under it.",
                              fields(token=of(["integer", "null"]), count=WHOLE, bytes=WHOLE,
                                     files=listed(TEXT)), 400, requestBody=sent(subject=TEXT))
        },
        "/api/v1/subjects/erase": {
            "post": operation("erase_subject", "Destroy a subject's keys, rows and bodies.", erased,
                              400, 404, requestBody=sent(
                                  token=of("integer", "What find_subject says."),
                                  decision=of("string", "Or the id of a decision."),
                                  reason=reason))
        },
        "/api/v1/holds": {
            "get": operation("holds", "Legal holds, and erasures that wait for their release.",
                             fields(holds=listed(of("object")), deferred=listed(of("object")))),
            "post": operation("change_hold", "Hold a model or decisions, or release a hold.",
                              fields(hold=TEXT), 400, 404, requestBody=sent(
                                  action=of("string", enum=["hold", "release"]), model=TEXT,
                                  decisions=listed(TEXT), hold=TEXT, reason=reason)),
        },
    }  # fmt: skip


def schemas() -> dict[str, Schema]:
    reports: dict[str, Schema] = {
        kind.__name__: TypeAdapter(kind).json_schema(
            mode="serialization", ref_template=SCHEMAS + "{model}"
        )
        for kind in (
            WindowReport,
            CohortReport,
            PairedAccuracy,
            KeyOutcomes,
            PairReport,
            ShadowReport,
        )  # fmt: skip
    }
    parts = [report.pop("$defs", {}) for report in reports.values()]
    return {
        **{name: part for some in parts for name, part in some.items()},
        **reports,
        "Error": fields(error=of("string", "For people."), code=of("string", "For programs.")),
        **status_schemas(),
        **decision_schemas(),
        "Reproduction": reproduction_schema(),
        "Window": window_schema(),
        **monitor_schemas(),
        **table_schemas(),
        **rollout_schemas(),
    }


def reproduction_schema() -> Schema:
    result = of("string", enum=["equal", "within", "different", "cannot"])
    why = of("string", "Why it cannot be made again.")
    differing = of("integer", "How many places differ; the first of them are in `where`.")
    return fields(
        id=TEXT, leaf=WHOLE, model=TEXT_OR_NULL, version=TEXT_OR_NULL,
        answer=of("object", properties={"result": result, "why": why, "differing": differing},
                  required=["result"]),
        explanation=of("object", properties={"result": result, "why": why, "differing": differing},
                       required=["result"]),
        reading=of("integer", "The leaf that says that it was read."),
    )  # fmt: skip


STORE = fields(
    bytes=WHOLE,
    at_most=of(["integer", "null"], "Its budget; null: what the disk has."),
    left=of("number", "Share of budget or filesystem, whichever is less."),
    bytes_a_day=of(["integer", "null"], "Its growth; null: seen for less than ten minutes."),
    measured_s=of("integer", "For how long it was seen: an hour at most."),
    full_on=of(["string", "null"], "The day it is full at this growth."),
    rung=of("string", enum=["fine", "warn", "spare", "refuse"]),
)


def status_schemas() -> dict[str, Schema]:
    journal = fields(
        next_sequence=WHOLE,
        bytes=of("integer", "On disk."),
        damage=TEXT_OR_NULL,
        marked_seconds_ago=NUMBER_OR_NULL,
    )
    return {
        "Status": fields(
            state=of("string", enum=["green", "yellow", "red"]),
            words=listed(TEXT),
            revision=TEXT_OR_NULL,
            listen=keyed(of("string", "Host and port, by the port's name.")),
            processes=keyed(
                fields(running=FLAG, pid=of(["integer", "null"]), restarts=WHOLE)
            ),
            governor=may_be_null(
                fields(leaves=WHOLE, journals=keyed(journal), revision=TEXT_OR_NULL,
                       refused=listed(of("string", "Why the file is not in force.")),
                       damaged_keys=listed(of("string", "A subject's key that rotted.")),
                       damaged_holds=of(["string", "null"], "Why it is not known what is held."),
                       rollouts=listed(of("string", "A rollout that waits for people, and why.")),
                       frozen=listed(of("string", "A rule that may not widen, and why.")),
                       ledger=fields(name=TEXT, logs=keyed(fields(size=WHOLE, root=TEXT))))
            ),
            analyst=may_be_null(refer("Analyst")),
            disk=keyed(STORE),
        ),
        "Analyst": fields(
            reached=of("integer", "Leaves taken in."),
            leaves=of("integer", "Leaves in the ledger."),
            behind=WHOLE,
            witnesses=of("object", "How the witnesses stand."),
        ),
        "Reload": fields(
            changed=FLAG,
            revision=TEXT_OR_NULL,
            problems=listed(TEXT),
            restart=listed(of("string", "A key whose change waits for a restart.")),
        ),
        "Model": fields(
            name=TEXT,
            revision=TEXT,
            protocol=TEXT,
            durability=TEXT,
            versions=keyed(
                fields(
                    upstream=TEXT_OR_NULL,
                    artifact=TEXT_OR_NULL,
                    summary=TEXT_OR_NULL,
                    metrics=of(["object", "null"]),
                )
            ),
            rules=listed(
                fields(
                    name=TEXT,
                    stable=TEXT,
                    shadow=keyed(of("integer", "Parts per million.")),
                    canary=keyed(of("integer", "Parts per million.")),
                )
            ),
        ),
    }  # fmt: skip


def decision_schemas() -> dict[str, Schema]:
    score = {"score": NUMBER_OR_NULL, "outcome": TEXT_OR_NULL}
    flag = of(["boolean", "null"])
    shadow = fields(id=TEXT, version=TEXT_OR_NULL, status=WHOLE, agree=flag, noise=flag, **score)
    reason = fields(code=TEXT, text=TEXT, feature=TEXT, attribution=NUMBER)
    change = fields(
        changes=keyed(of(["number", "string"], "Where the feature would have to be.")),
        outcome=TEXT, score=NUMBER, text=TEXT,
    )  # fmt: skip
    explanation = of(
        "object",
        "With `not_explained`, why there is none; otherwise method, space, base, prediction, "
        "residual, attributions and reasons.",
        properties={
            "not_explained": TEXT, "method": TEXT, "space": TEXT, "base": NUMBER,
            "prediction": NUMBER, "residual": NUMBER, "background_rows": WHOLE,
            "attributions": keyed(NUMBER), "standard_errors": listed(NUMBER),
            "reasons": listed(reason),
            "counterfactuals": listed(change),
            "no_counterfactual": of("string", "Why none is told of an adverse outcome."),
        },
    )  # fmt: skip
    whole = fields(
        id=TEXT,
        leaf=WHOLE,
        decision=may_be_null(fields(**score)),
        unreadable=TEXT_OR_NULL,
        withheld=FLAG,
        record=of("object", "The record as the worker wrote it."),
        explanation=may_be_null(explanation),
        trace=of(
            ["object", "null"],
            "Of a generated answer: route, policies, settings asked for, "
            "how it ended, log-probabilities in sum.",
        ),
        shadows=listed(shadow),
        comparison=of(["object", "null"], "Of a shadow's: with the answer that was given."),
        windows=listed(fields(name=TEXT, state=TEXT)),
        body=of(["object", "null"], "Where the sealed body lies."),
        context=of(["object", "null"], "Path, headers, subjects, groups as sent, once revealed."),
        features=of(["object", "null"], "The row's values as sent, once revealed."),
        predictions=of(
            ["array", "null"],
            "What the version said, one value a row, with or without a card, once revealed: "
            "the row's, or of rows that nobody told apart the first 256.",
        ),
        revealed=FLAG,
        words=listed(TEXT),
    )
    part = fields(length=WHOLE, sha256=TEXT, truncated=FLAG)
    whole["properties"] |= {
        "request": part,
        "response": part,
        "body_error": TEXT,
        "parts": of(["string", "null"], "Base64; where asked for."),
    }
    return {
        "Row": fields(
            id=TEXT, leaf=WHOLE, at=MOMENT, model=TEXT_OR_NULL, version=TEXT_OR_NULL,
            arm=TEXT_OR_NULL, rule=TEXT_OR_NULL, status=WHOLE, primary=TEXT_OR_NULL, **score,
        ),
        "Decision": whole,
    }  # fmt: skip


def window_schema() -> Schema:
    return fields(
        id=TEXT, model=TEXT, version=TEXT, arm=TEXT, number=WHOLE,
        artifact=of(["string", "null"], "Digest of what answered."), leaf=WHOLE,
        first_decision=TEXT, last_decision=TEXT, opened_at=TEXT, closed_at=TEXT,
        counts=fields(decisions=WHOLE, outcomes=of(["object", "null"], "By word, and `other`.")),
        state=TEXT, verdicts=of(["object", "null"], "By cause, the states that are not ok."),
        words=listed(TEXT), decisions=of("string", "Where its decisions are."),
        report=refer("WindowReport"),
    )  # fmt: skip


def monitor_schemas() -> dict[str, Schema]:
    count = fields(
        version=TEXT, arm=TEXT, decisions=WHOLE, mean_score=NUMBER_OR_NULL, explained=WHOLE,
        waiting_for_explanation=WHOLE, outcomes=keyed(WHOLE),
    )  # fmt: skip
    pair = fields(
        primary=TEXT, arm=TEXT, shadow=TEXT, decisions=WHOLE, same_outcome=WHOLE,
        mean_score_difference=NUMBER_OR_NULL,
    )  # fmt: skip
    series = fields(version=TEXT, arm=TEXT, windows=WHOLE, latest=refer("WindowReport"))
    labels = fields(
        labels=WHOLE, decisions=WHOLE, corrected=of("integer", "Changed what was told before."),
        duplicates=of("integer", "Changed nothing."),
        contradicting=of("integer", "Decisions on which sources differ."),
    )  # fmt: skip
    alert = fields(
        id=TEXT, model=TEXT, version=TEXT, cause=TEXT, number=WHOLE,
        state=of("string", enum=["open", "acknowledged", "resolved"]),
        severity=of("string", enum=["warning", "critical"]), first_seen=WHOLE, opened_at=WHOLE,
        updated_at=WHOLE, windows=WHOLE, raising=listed(TEXT),
        calm=of("object", "Calm windows running, by arm."),
        resolved_at=of(["integer", "null"]), acknowledged_by=TEXT_OR_NULL,
        muted_until=of(["integer", "null"]), muted_by=TEXT_OR_NULL, reason=TEXT_OR_NULL,
        over_since=of(["integer", "null"], "It came back quietly: when its end was told."),
        evidence=of("object", "Window, decisions, and what was compared, before and after."),
        last=fields(event=TEXT, at=MOMENT),
    )  # fmt: skip
    happening = fields(
        at=WHOLE, event=TEXT, alert=TEXT, severity=TEXT, window=TEXT_OR_NULL
    )  # fmt: skip
    would = fields(
        decisions=WHOLE, windows=keyed(WHOLE), alarms=keyed(WHOLE), events=keyed(WHOLE),
        happenings=listed(happening), stopped=of("boolean", "There was more than it may read."),
    )  # fmt: skip
    return {
        "Alert": alert,
        "Backtest": fields(
            model=TEXT,
            first_leaf=of(["integer", "null"]),
            settings=of("object"),
            was=fields(windows=keyed(WHOLE), events=keyed(WHOLE)),
            would={"anyOf": [would, of("null")]},
            reading=WHOLE,
        ),
        "Performance": fields(
            model=TEXT,
            labels=labels,
            cohorts=listed(refer("CohortReport")),
            groups=listed(refer("KeyOutcomes")),
            pairs=listed(refer("PairedAccuracy")),
            unmatched=of("integer", "Labels, of all models, that name no decision."),
        ),
        "Monitor": fields(
            model=TEXT,
            counted_at=of("string", "When the counts were found, which are found anew at times."),
            counts=listed(count),
            agreement=listed(pair),
            series=listed(series),
            pairs=listed(refer("PairReport")),
        ),
    }
