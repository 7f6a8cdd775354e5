"""The gateway as the benchmark runs it: governed and durable, with everything on.

One process tree serves several models, each a way of being measured: a canary takes 5 %, a shadow
1 %, callers have keys, limits and metrics are on. What the gateway's own `check` refuses, because
this version does not have it, is left out with the reason that `check` gave.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from load.scenario import CHAT_PATH, KEY, infer_path
from load.tables import ALONE

ROOT = Path(__file__).parents[1]
LIMITS = {"in_flight": 1024, "pending": 512, "connections": 256}


def proxied(origin: int, **more: Any) -> dict[str, Any]:
    """A model whose three versions are all the origin."""
    upstream = {"upstream": f"http://127.0.0.1:{origin}"}
    rule = {"name": "everyone", "split": {"v1": "95%", "v2": "5%"}, "shadow": {"v3": "1%"}}
    return {
        "durability": "durable",
        "limits": LIMITS,
        "versions": {"v1": upstream, "v2": upstream, "v3": upstream},
        "rules": [rule],
        **more,
    }


def in_process() -> dict[str, Any]:
    """The mortgage model in the worker, explained and monitored."""
    folder = ROOT / "models" / "mortgage"
    rule = {"name": "everyone", "split": {"v1": "95%", "v2": "5%"}, "shadow": {"v3": "1%"}}
    return {
        "durability": "durable",
        "limits": LIMITS,
        "versions": {name: {"artifact": str(folder / name)} for name in ("v1", "v2", "v3")},
        "rules": [rule],
        "explain": {"background": str(folder / "background.parquet")},
        "monitor": {"reference": str(folder / "reference.parquet")},
    }


def wanted(origin: int) -> dict[str, dict[str, Any]]:
    """All models the benchmark would like, whether this gateway takes them or not."""
    exposed = ["id", "receipt"]
    return {
        "tabular": proxied(origin),
        "bounded": proxied(origin, durability="bounded"),
        "receipts": proxied(origin, expose=exposed),
        "stream": proxied(origin),
        "chat": proxied(origin, protocol="openai", shadow={"idempotent": True}),
        "mortgage": in_process(),
    }


def document(
    folder: Path, ports: tuple[int, int], models: Mapping[str, dict[str, Any]], workers: int
) -> dict[str, Any]:
    """The configuration file; `ports`: data and admin."""
    key = hashlib.sha256(KEY.encode()).hexdigest()
    return {
        "listen": {"data": f"127.0.0.1:{ports[0]}", "admin": f"127.0.0.1:{ports[1]}"},
        "workers": workers,
        "state": str(folder / "state"),
        "keys": str(folder / "keys"),
        "callers": [{"name": "load", "key_sha256": key}],
        "models": dict(models),
    }


def check(folder: Path, made: Mapping[str, Any]) -> str:
    """ "" if the gateway takes the configuration, else what it says of it."""
    path = write(folder, made)
    command = [sys.executable, "-m", "gateway", "check", "--json", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    try:
        problems = json.loads(done.stdout)["problems"]
    except ValueError:
        return (done.stdout + done.stderr).strip()[-300:]
    return "; ".join(f"{p['key']} = {p['value']}: {p['allowed']}" for p in problems[:2])


def write(folder: Path, made: Mapping[str, Any]) -> Path:
    """JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "headworks.yaml"
    path.write_text(json.dumps(made, indent=1))
    return path


def accepted(
    folder: Path, ports: tuple[int, int], origin: int, workers: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration of all models that `check` takes, and why the others are left out."""
    models, refused = {}, {}
    for name, model in wanted(origin).items():
        candidates = [model]
        if "shadow" in model:  # the setting may be what is not there
            candidates.append({key: value for key, value in model.items() if key != "shadow"})
        for candidate in candidates:
            reason = check(folder, document(folder, ports, {name: candidate}, workers))
            if not reason:
                models[name] = candidate
                break
        else:
            refused[name] = reason
    return document(folder, ports, models, workers), refused


def paths(models: Mapping[str, Any], variant: str) -> dict[str, str]:
    """Where a variant of the gateway is asked for each scenario it can take."""
    if variant in ("bounded", "receipts"):
        return {"json-200": infer_path(variant)} if variant in models else {}
    if variant == "source":
        return {"json-200": infer_path("tabular")}
    found = {name: infer_path("tabular") for name in ("json-200", "json-16k", "binary-1m")}
    found["sse"] = CHAT_PATH if "chat" in models else infer_path("stream")
    if "chat" in models:
        found["chat"] = CHAT_PATH
    if variant == ALONE:
        return {name: found[name] for name in ("json-200", "chat") if name in found}
    if "mortgage" in models:
        found["onnx"] = infer_path("mortgage")
    return found
