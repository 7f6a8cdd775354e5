"""Questions about no model in particular, where several servers stand behind one path: pure.

With one server behind it they are that server's to answer; with several, or with models in the
process, the gateway answers what it knows and refuses the rest.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway import __version__
from gateway.dataplane.routing import Place
from gateway.errors import Refusal
from gateway.exchange import Reply
from gateway.protocol import grpc, openai, v1, v2
from gateway.protocol.protobuf import encode

EXTENSIONS = ["binary_tensor_data", "model_repository"]


def answer(place: Place) -> Reply:
    """Refusal `unknown_path` where only one of the servers could know."""
    operation, names = place.target.operation, list(place.models)
    if place.dialect is v2 and operation == "server/repository/index":
        return _say([_entry(place, name, version) for name, version in _versions(place)])
    if place.dialect is openai and operation == "models":
        return Reply(200, [(b"content-type", openai.ERROR_TYPE)], openai.catalogue(names))
    if place.dialect is v1 and operation == "models":
        return _say({"models": names})
    if place.dialect is v1 and operation == "live":
        return _say({"status": "alive"})
    if place.dialect is grpc:
        return Reply(200, [], _call(place, operation.removeprefix("server/")))
    words = f"{place.path[:200]!r} is about one server; several are here: give each model a `path`"
    raise Refusal("unknown_path", words)


def server() -> dict[str, Any]:
    """What `/v2` says of the gateway itself."""
    return {"name": "headworks", "version": __version__, "extensions": EXTENSIONS}


def _versions(place: Place) -> list[tuple[str, str]]:
    return [(name, version) for name, model in place.models.items() for version in model.versions]


def _entry(place: Place, name: str, version: str) -> dict[str, str]:
    return {"name": name, "version": version, "state": "READY", "reason": ""}


def _call(place: Place, call: str) -> bytes:
    if call in ("ServerLive", "ServerReady"):
        return grpc.write_flag(True)
    if call == "ServerMetadata":
        return grpc.write_server("headworks", __version__, EXTENSIONS)
    if call == "RepositoryIndex":
        entries = (
            encode(1, name) + encode(2, version) + encode(3, "READY")
            for name, version in _versions(place)
        )
        return b"".join(encode(1, entry) for entry in entries)
    raise Refusal("unknown_path", f"{call[:80]!r} is not served here")


def _say(document: Any) -> Reply:
    return Reply(200, [(b"content-type", v2.ERROR_TYPE)], orjson.dumps(document))
