"""Which model a request is for, and which rule it falls under: pure. The first match wins.

A path says the dialect by its form and the model by its name; where it does not (`/invocations`,
`/v1/chat/completions`, gRPC), the configuration or the body does.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.condition import Asked, first_failed
from gateway.errors import Refusal
from gateway.protocol import grpc, openai, v2
from gateway.protocol.dialect import Dialect, Target
from gateway.protocol.dialects import DIALECTS, dialect_at
from gateway.protocol.tensor import Unreadable
from gateway.table import Model, Mount, Rule, Table


class Place:
    """Where a path leads: its dialect, what it asks for, the models it may be for, and the path
    that an upstream is asked for. `method` is the one it takes (None: any), `in_body`: only the
    body says the model; `model` and `version` are what the path alone decides. Many requests share
    a place, so all that can be known of it is."""

    __slots__ = ("dialect", "in_body", "method", "model", "models", "path", "target", "version")

    def __init__(
        self, dialect: Dialect, target: Target, models: Mapping[str, Model], path: str
    ) -> None:
        self.dialect, self.target, self.models, self.path = dialect, target, models, path
        self.method = dialect.METHODS.get(target.operation) or None
        self.in_body = target.model is None and _is_in_body(dialect, target, models)
        self.model: Model | None = None
        self.version: str | None = None
        try:
            if not self.in_body:
                self.model, self.version = find_model(self)
        except Refusal:
            pass  # `find_model` says so, when it is this request's turn


def _is_in_body(dialect: Dialect, target: Target, models: Mapping[str, Model]) -> bool:
    if dialect is grpc:
        return grpc.names_model(target.operation)
    return dialect is openai and len(models) > 1 and target.operation != "models"


def find_mount(table: Table, host: str, path: str) -> Mount | None:
    return next((mount for mount in table.mounts if mount.fits(host, path)), None)


def locate(table: Table, host: str, path: str) -> Place:
    """Refusal `unknown_path` where no model's protocol has such a path."""
    mount = find_mount(table, host, path)
    if mount is not None:
        rest = path[len(mount.path) :] or "/"
        for protocol, models in mount.models.items():
            dialect = DIALECTS[protocol]
            target = dialect.locate(rest)
            if target is not None:
                sent = v2.without_version(rest) if target.version is not None else rest
                return Place(dialect, _meant(target, models), models, sent)
    elsewhere = dialect_at(path).locate(path)
    if elsewhere is not None and elsewhere.model is not None:
        raise Refusal("unknown_model", f"model {elsewhere.model!r} is unknown")
    raise Refusal("unknown_path", f"no model is served at {path[:200]!r}")


def _meant(target: Target, models: Mapping[str, Model]) -> Target:
    """The one path that a model's own configuration calls an inference."""
    if target.model is None and len(models) == 1:
        (model,) = models.values()
        predict = model.mapping.get("predict")
        if predict is not None and target.operation == "path" + predict:
            return Target(None, None, "infer")
    return target


def locate_call(table: Table, path: str) -> Place:
    """The same for a gRPC call, whose path is the method's name."""
    target = grpc.locate(path)
    models = {name: model for name, model in table.models.items() if model.protocol == "v2"}
    assert target is not None
    return Place(grpc, target, models, path)


def check_method(place: Place, method: str) -> None:
    if method == place.method:
        return
    if place.method is not None:
        raise Refusal("method_not_allowed", f"{method} is not taken here; {place.method} is")
    if method == "TRACE":
        # Its answer is the request as the upstream got it, with the credential of `auth:`.
        raise Refusal("method_not_allowed", "TRACE is taken nowhere")


def find_model(place: Place, body: bytes = b"") -> tuple[Model | None, str | None]:
    """The model and the version asked for; no model: the question is the gateway's to answer."""
    name, version = place.target.model, place.target.version
    if name is None and place.in_body:
        try:
            name, version = place.dialect.asked(body)
        except Unreadable as error:
            raise Refusal("bad_body", str(error)) from None
        if name is None:
            raise Refusal("bad_body", "model: the name of a model is wanted")
    if name is None:
        return _only(place), None
    model = place.models.get(name) or next(
        (
            model
            for model in place.models.values()
            if model.protocol != "v2" and name in model.names
        ),
        None,
    )
    if model is None:
        raise Refusal("unknown_model", f"model {name[:80]!r} is unknown")
    if version is not None and version not in model.versions:
        words = f"model {name!r} has no version {version[:80]!r}"
        raise Refusal("unknown_version", words)
    return model, version


def _only(place: Place) -> Model | None:
    """The model whose server a question about no model in particular goes to, if it is only one."""
    models = list(place.models.values())
    if place.dialect in (v2, grpc) or len(models) > 1:
        servers = {(model.stable.upstream, model.stable.grpc) for model in models}
        reached = [at.grpc if place.dialect is grpc else at.upstream
                   for at in (model.stable for model in models)]  # fmt: skip
        if len(servers) > 1 or None in reached:
            return None
    return models[0] if models else None


def match(model: Model, asked: Asked) -> Rule:
    """The first rule of which every condition holds."""
    for rule in model.rules:
        if not rule.conditions or first_failed(rule.conditions, asked) is None:
            return rule
    raise Refusal("no_rule", f"no rule of model {model.name!r} matches this request")
