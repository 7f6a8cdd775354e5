"""Do artifacts load, and graphs and data files fit their cards? Asked before serving, and by
`check`, in a process that may hold onnxruntime and pyarrow."""

from __future__ import annotations

import importlib.util
from typing import Any

from gateway.check import Checked
from gateway.yamlfile import Key, dotted


def _problem(checked: Checked, key: Key, value: str, words: str) -> dict[str, Any]:
    """At the line of the configuration that says so, as its own problems are."""
    line = checked.line_of(key)
    return {"file": checked.path.name, "line": line, "key": dotted(key), "value": value,
            "allowed": words}  # fmt: skip


def _data_misfits(checked: Checked) -> list[dict[str, Any]]:
    """Background and reference: Parquet, with a column for each feature of each card."""
    import pyarrow.parquet

    assert checked.settings is not None
    found = []
    for name, model in checked.settings.models.items():
        wanted = {
            feature.name
            for (of, _), card in checked.cards.items()
            if of == name
            for feature in card.features
        }
        for key, file in (
            (("explain", "background"), model.explain.background),
            (("monitor", "reference"), model.monitor.reference),
        ):
            if file is None:
                continue
            try:
                columns = set(pyarrow.parquet.read_schema(checked.resolve(file)).names)
                lacking = sorted(wanted - columns)
                words = f"columns are missing: {', '.join(lacking)}" if lacking else ""
            except (OSError, ValueError) as error:
                words = f"not Parquet: {error}"
            if words:
                found.append(_problem(checked, ("models", name, *key), file, words))
    return found


def misfits(checked: Checked) -> list[dict[str, Any]]:
    from gateway.dataplane.inprocess import Session

    assert checked.settings is not None
    found = _data_misfits(checked)
    for name, model in checked.settings.models.items():
        for version, settings in model.versions.items():
            card = checked.cards.get((name, version))
            if card is None or settings.artifact is None:
                continue
            try:
                Session(checked.resolve(settings.artifact), name, version, card)
            except Exception as error:
                at: Key = ("models", name, "versions", version, "artifact")
                found.append(_problem(checked, at, settings.artifact, str(error)))
    return found


ASK_S = 3.0
QUESTIONS = {
    "v2": "/v2/models/{model}", "v1": "/v1/models/{model}", "openai": "/v1/models",
    "mlflow": "/ping",
}  # fmt: skip


def upstream_misfits(checked: Checked) -> list[dict[str, Any]]:
    """Ask each upstream for its metadata: who does not answer, and what does not fit the card."""
    import httpx2

    assert checked.settings is not None
    found = []
    with httpx2.Client(timeout=ASK_S, follow_redirects=False) as client:
        for name, model in checked.settings.models.items():
            question = QUESTIONS.get(model.protocol)
            for version, settings in model.versions.items():
                if question is None:
                    continue
                for number, server in enumerate(settings.urls):
                    at: Key = ("models", name, "versions", version, "upstream")
                    if settings.upstream is None:
                        at = (*at[:-1], "endpoints", number)
                    url = server.rstrip("/") + question.format(model=name)
                    try:
                        answer = client.get(url)
                        words = _unfit(checked, name, version, answer.status_code, answer.content)
                    except httpx2.HTTPError as error:
                        words = [f"does not answer: {type(error).__name__}: {error}"]
                    found += [_problem(checked, at, url, said) for said in words]
                if settings.grpc is not None:
                    at = ("models", name, "versions", version, "grpc")
                    words = _unfit_by_grpc(settings.grpc, name)
                    found += [_problem(checked, at, settings.grpc, said) for said in words]
    return found


def _unfit_by_grpc(address: str, name: str) -> list[str]:
    """Whether the model is ready there too."""
    if importlib.util.find_spec("grpc") is None:
        return ["is not asked: needs the extra: pip install 'headworks[grpc]'"]
    import grpc

    from gateway.protocol.grpc import SERVICE
    from gateway.protocol.protobuf import encode

    with grpc.insecure_channel(address) as channel:
        try:
            ask = channel.unary_unary(f"{SERVICE}ModelReady")
            told = ask(encode(1, name), timeout=ASK_S)
        except grpc.RpcError as error:
            return [f"does not answer: {error.code().name}: {error.details()}"]
    return [] if told == encode(1, True) else [f"model {name!r} is not ready there"]


def _unfit(checked: Checked, name: str, version: str, status: int, body: bytes) -> list[str]:
    import orjson

    assert checked.settings is not None
    if status != 200:
        return [f"answered with status {status}; 200 is wanted"]
    model, card = checked.settings.models[name], checked.cards.get((name, version))
    if model.protocol != "v2" or card is None:
        return []
    try:
        told = orjson.loads(body)
        inputs = {item["name"] for item in told["inputs"]}
        outputs = {item["name"] for item in told["outputs"]}
    except (ValueError, KeyError, TypeError):
        return ["its metadata is none of the protocol's"]
    mapping = model.mapping
    wanted = {feature.carrier for feature in card.features}
    if mapping.layout == "matrix":
        wanted = {mapping.input} if mapping.input else wanted & inputs
        if mapping.input is None and len(inputs) != 1:
            return [f"has {len(inputs)} inputs; mapping.input says which one is the matrix"]
    score = mapping.output or card.outputs.score.tensor
    lacking = [f"has no input {tensor!r}" for tensor in sorted(wanted - inputs)]
    return lacking + ([] if score in outputs else [f"has no output {score!r}"])
