"""All dialects by name, and the one that a path belongs to where no model does. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.protocol import grpc, mlflow, openai, raw, v1, v2
from gateway.protocol.dialect import Dialect

DIALECTS: Mapping[str, Dialect] = {
    "v2": v2, "v1": v1, "openai": openai, "mlflow": mlflow, "raw": raw, "grpc": grpc,
}  # fmt: skip


def dialect_of(protocol: object) -> Dialect:
    """The dialect that a record's header or a model names; v2 where it is silent."""
    return DIALECTS.get(str(protocol), v2)


def dialect_at(path: str) -> Dialect:
    """In which dialect to refuse a path that no model has."""
    for dialect in (v1, openai, mlflow):
        if path != "/" and dialect.locate(path) is not None:
            return dialect
    return v2
