"""The API of the table, described: revisions, edits, reverts, traces."""

from __future__ import annotations

from typing import Any

from gateway.console.schema import (
    FLAG,
    MOMENT,
    TEXT,
    TEXT_OR_NULL,
    WHOLE,
    Schema,
    fields,
    in_path,
    in_query,
    keyed,
    listed,
    of,
    operation,
    refer,
    sent,
)


def table_paths() -> dict[str, Any]:
    revision = in_path("revision", "Digest, its beginning, number, current or previous.", "current")
    if_match = {"name": "If-Match", "in": "header", "schema": TEXT,
                "description": "The revision that this was made for: its ETag."}  # fmt: skip
    models = of("object", "By name: `rules`, whole and in order, in a file's words.")
    reason = of("string", "5 to 500 characters.")
    wanted = {**if_match, "required": True}
    return {
        "/api/v1/table": {
            "get": operation("table", "The table in force; ETag is its revision.", refer("Table")),
            "put": operation("edit_table", "Put rules in the place of models' rules; JSON or YAML.",
                             refer("Published"), 403, 409, 412, 413, 422, 428, parameters=[wanted],
                             requestBody=sent(reason=reason, models=models)),
        },
        "/api/v1/revisions": {
            "get": operation("revisions", "Who made which when and why, the newest first.",
                             fields(revisions=listed(refer("Revision"))), 400,
                             parameters=[in_query("limit", "Revisions at most.", WHOLE)])
        },
        "/api/v1/revisions/{revision}": {
            "get": operation("revision", "One revision, and what it changed.", refer("Compared"),
                             404, parameters=[revision, in_query(
                                 "against", "Revision to compare with; absent: its parent.")])
        },
        "/api/v1/revisions/{revision}/revert": {
            "post": operation("revert", "Bring a revision back into force, as a new one.",
                              refer("Published"), 400, 403, 404, 412,
                              parameters=[revision, if_match], requestBody=sent(reason=reason))
        },
        "/api/v1/routes/trace": {
            "post": operation("trace", "What a request would meet; nothing is sent.",
                              refer("Trace"), 400, 404, 413, 422, requestBody=sent(
                                  method=TEXT, path=TEXT, headers=keyed(TEXT), caller=TEXT,
                                  body=of(["string", "object", "array"], "A text, or JSON."),
                                  body_base64=TEXT, exchange=TEXT, revision=TEXT,
                                  draft=of(["string", "object"], "As edit_table takes it.")))
        },
        "/api/v1/routes/try": {
            "post": operation("try_draft", "Recorded requests against a draft of rules; a leaf "
                              "says that they were read.", refer("Trial"), 400, 413, 422,
                              requestBody=sent(last=of("integer", "10,000 if absent."),
                                               draft=of(["string", "object"],
                                                        "As edit_table takes it.")))
        },
    }  # fmt: skip


def table_schemas() -> dict[str, Schema]:
    about: dict[str, Schema] = {
        "revision": TEXT,
        "number": WHOLE,
        "parent": TEXT_OR_NULL,
        "author": TEXT,
        "reason": TEXT,
        "created": MOMENT,
        "origin": of("string", "file, api, rollout, revert or alert."),
    }
    models = keyed(fields(versions=listed(TEXT), rules=listed(of("object", "In a file's words."))))
    change = fields(key=of("string", "As a file's."), before={}, after={})
    compared = {"against": TEXT_OR_NULL, "difference": listed(change)}
    rule = fields(name=TEXT, result=of("string", enum=["matches", "fails", "not reached"]),
                  condition=TEXT_OR_NULL, found={})  # fmt: skip
    decided = fields(rule=TEXT_OR_NULL, version=TEXT_OR_NULL)
    moved = {"from": decided, "to": decided}
    return {
        "Trial": fields(
            tried=WHOLE, change=WHOLE, stay=WHOLE, unknown=WHOLE, refused=WHOLE, forced=WHOLE,
            session=WHOLE, gone=WHOLE, unknown_because=keyed(WHOLE), reading=WHOLE,
            changes=listed(fields(model=TEXT, count=WHOLE, examples=listed(TEXT), **moved)),
        ),
        "Revision": fields(**about),
        "Table": fields(**about, models=models),
        "Compared": fields(**about, models=models, **compared),
        "Published": fields(revision=TEXT, changed=FLAG, warnings=listed(TEXT), ended=listed(
            of("string", "A rollout that the revert took away."))),
        "Trace": of("object", "How far the request comes.", required=["exchange", "revision"],
                    properties={"exchange": TEXT, "revision": TEXT, "caller": TEXT,
                                "model": TEXT_OR_NULL, "rules": listed(rule), "rule": TEXT,
                                "arm": TEXT, "version": TEXT, "bucket_ppm": WHOLE,
                                "endpoints": listed(TEXT), "shadows": listed(of("object")),
                                "refused": fields(code=TEXT, status=WHOLE, message=TEXT)}),
    }  # fmt: skip
