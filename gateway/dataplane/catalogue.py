"""Questions about no model in particular, where several servers stand behind one path: pure.

With one server behind it they are that server's to answer; with several, or with models in the
process, the gateway answers what it knows and refuses the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway import __version__
from gateway.errors import Refusal
from gateway.exchange import Reply
from gateway.protocol import grpc, openai, v1, v2
from gateway.protocol.tensor import Unreadable
from gateway.routing.place import Place

EXTENSIONS = ["binary_tensor_data", "model_repository"]
ABOUT_READINESS = frozenset(
    ("server/repository/index", "server/RepositoryIndex", "server/ServerReady")
)
"""Questions that `Asked.ready` is needed for."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer is made of beside the table. `body`: the question's own; `ready`: of each
    version, by model and version, whether it can answer."""

    body: bytes = b""
    ready: Mapping[tuple[str, str], bool] = field(default_factory=dict)


def answer(place: Place, asked: Asked) -> Reply:
    """Refusals `unknown_path` where only one of the servers could know, `bad_body`."""
    try:
        return _answer(place, asked)
    except Unreadable as error:
        raise Refusal("bad_body", str(error)) from None


def _answer(place: Place, asked: Asked) -> Reply:
    operation, names = place.target.operation, list(place.models)
    if place.dialect is v2 and operation == "server/repository/index":
        return _say([_entry(*item) for item in _index(asked, v2.only_ready(asked.body))])
    if place.dialect is openai and operation == "models":
        return Reply(200, [(b"content-type", openai.ERROR_TYPE)], openai.catalogue(names))
    if place.dialect is v1 and operation == "models":
        return _say({"models": names})
    if place.dialect is v1 and operation == "live":
        return _say({"status": "alive"})
    if place.dialect is grpc:
        return Reply(200, [], _call(place, operation.removeprefix("server/"), asked))
    words = f"{place.path[:200]!r} is about one server; several are here: give each model a `path`"
    raise Refusal("unknown_path", words)


def server() -> dict[str, Any]:
    """What `/v2` says of the gateway itself."""
    return {"name": "headworks", "version": __version__, "extensions": EXTENSIONS}


Entry = tuple[str, str, str, str]


def _index(asked: Asked, only_ready: bool) -> list[Entry]:
    """Model, version, state, reason: as Triton's index has them."""
    return [
        (*key, "READY", "") if ready else (*key, "UNAVAILABLE", "its server is not ready")
        for key, ready in asked.ready.items()
        if ready or not only_ready
    ]


def _entry(name: str, version: str, state: str, reason: str) -> dict[str, str]:
    return {"name": name, "version": version, "state": state, "reason": reason}


def _call(place: Place, call: str, asked: Asked) -> bytes:
    if call == "ServerLive":
        return grpc.write_flag(True)
    if call == "ServerReady":
        stable = ((model.name, model.stable.name) for model in place.models.values())
        return grpc.write_flag(all(asked.ready[key] for key in stable))
    if call == "ServerMetadata":
        return grpc.write_server("headworks", __version__, EXTENSIONS)
    if call == "RepositoryIndex":
        return grpc.write_index(_index(asked, grpc.only_ready(asked.body)))
    raise Refusal("unknown_path", f"{call[:80]!r} is not served here")


def _say(document: Any) -> Reply:
    return Reply(200, [(b"content-type", v2.ERROR_TYPE)], orjson.dumps(document))
