"""What the API's description is made of: shapes, operations, parameters."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
SCHEMAS = "#/components/schemas/"


def of(kind: str | list[str], words: str = "", **more: Any) -> Schema:
    return {"type": kind} | ({"description": words} if words else {}) | more


def refer(name: str) -> Schema:
    return {"$ref": SCHEMAS + name}


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def keyed(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def fields(**properties: Schema) -> Schema:
    """An object that has exactly these."""
    return {
        "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def may_be_null(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


TEXT, WHOLE, NUMBER, FLAG = of("string"), of("integer"), of("number"), of("boolean")
TEXT_OR_NULL, NUMBER_OR_NULL = of(["string", "null"]), of(["number", "null"])
MOMENT = of("string", format="date-time")


def operation(name: str, summary: str, answer: Schema, *errors: int, **more: Any) -> Schema:
    """`errors` are the statuses peculiar to it; those of the front door are in `default`."""
    told = {
        400: "A parameter is wrong.",
        404: "There is none.",
        403: "The person may not do it, or not alone.",
        409: "It cannot be done now.",
        412: "Another revision is in force; what it changed is shown.",
        428: "If-Match is wanted.",
        413: "It is too large.",
        422: "The file is not in order; `problems` says why, with lines.",
    }
    responses: dict[str, Any] = {"200": response("As asked.", answer)}
    for status in errors:
        responses[str(status)] = response(told[status], refer("Error"))
    responses["default"] = response(
        "Refused at the door (401, 403, 413, 421) or the process that answers is down (503).",
        refer("Error"),
    )
    return {"operationId": name, "summary": summary, "responses": responses, **more}


def response(words: str, schema: Schema) -> Schema:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def in_path(name: str, words: str, example: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": words,
            "schema": TEXT, "example": example}  # fmt: skip


def in_query(name: str, words: str, schema: Schema = TEXT) -> Schema:
    return {"name": name, "in": "query", "description": words, "schema": schema}


def sent(**properties: Schema) -> dict[str, Any]:
    """A request body: one JSON object."""
    return {"content": {"application/json": {"schema": of("object", properties=properties)}}}
