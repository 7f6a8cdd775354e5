"""Real servers in environments of their own, under `.cache/conformance/` (ignored by git)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "conformance"
ENVIRONMENTS = {
    "triton": ["tritonclient[all]"],
    "openai": ["openai"],
    "mlserver": ["mlserver", "mlserver-sklearn"],
    "mlflow": ["mlflow", "scikit-learn"],
    "kserve": ["kserve"],
    "langchain": ["langchain-openai"],
    "litellm": ["litellm", "mcp"],
}
TRAIN = """
import sys, joblib, numpy as np
from sklearn.linear_model import LogisticRegression
rows = np.random.default_rng(7).random((64, 2))
model = LogisticRegression().fit(rows, rows.sum(axis=1) > 1)
if sys.argv[1] == "joblib":
    joblib.dump(model, sys.argv[2])
else:
    import mlflow.sklearn, pandas
    frame = pandas.DataFrame(rows, columns=["a", "b"])
    mlflow.sklearn.save_model(LogisticRegression().fit(frame, rows.sum(axis=1) > 1), sys.argv[2],
                              serialization_format="cloudpickle")
"""


@dataclass
class Server:
    http: int
    grpc: int = 0


def python(name: str) -> str:
    """The interpreter of an environment; made from PyPI where it is not there yet."""
    folder = CACHE / name
    if not (folder / "bin" / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *ENVIRONMENTS[name]], check=True)
    return str(folder / "bin" / "python")


def versions(name: str, *packages: str) -> str:
    """What is installed there, as `package version`."""
    code = (
        "import importlib.metadata as m, sys; "
        "print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
    )
    command = [python(name), "-c", code, *packages]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _process(command: list[str], url: str, folder: Path, patience_s: float) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, start_new_session=True,
            env={**os.environ, "PATH": f"{Path(command[0]).parent}:{os.environ['PATH']}"},
        )  # fmt: skip
    try:
        until = time.monotonic() + patience_s
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((folder / "log").read_text()[-2000:])
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def mlserver(folder: Path) -> Iterator[Server]:
    server = Server(free_port(), free_port())
    settings = {"http_port": server.http, "grpc_port": server.grpc, "metrics_port": free_port(),
                "host": "127.0.0.1", "parallel_workers": 0}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "iris", "implementation": "mlserver_sklearn.SKLearnModel",
             "parameters": {"uri": "./model.joblib"}}  # fmt: skip
    (folder / "model-settings.json").write_text(json.dumps(model))
    here = python("mlserver")
    subprocess.run([here, "-c", TRAIN, "joblib", str(folder / "model.joblib")], check=True)
    command = [str(Path(here).parent / "mlserver"), "start", str(folder)]
    ready = f"http://127.0.0.1:{server.http}/v2/models/iris/ready"
    with _process(command, ready, folder, 90):
        yield server


@contextmanager
def mlflow(folder: Path) -> Iterator[Server]:
    server = Server(free_port())
    here = python("mlflow")
    subprocess.run([here, "-c", TRAIN, "mlflow", str(folder / "model")], check=True, cwd=folder)
    code = "import sys; from mlflow.cli import cli; sys.exit(cli())"
    command = [here, "-c", code, "models", "serve", "-m", str(folder / "model"), "--env-manager",
               "local", "-h", "127.0.0.1", "-p", str(server.http)]  # fmt: skip
    with _process(command, f"http://127.0.0.1:{server.http}/ping", folder, 120):
        yield server


@contextmanager
def kserve(folder: Path) -> Iterator[Server]:
    server = Server(free_port(), free_port())
    command = [python("kserve"), str(HERE / "kserve_server.py"), str(server.http), str(server.grpc)]
    with _process(command, f"http://127.0.0.1:{server.http}/v2/health/ready", folder, 60):
        yield server


@contextmanager
def triton(folder: Path) -> Iterator[Server]:
    server = Server(free_port(), free_port())
    command = [sys.executable, str(HERE / "triton_server.py"), str(server.http), str(server.grpc)]
    with _process(command, f"http://127.0.0.1:{server.http}/v2/health/ready", folder, 30):
        yield server


@contextmanager
def openai(folder: Path) -> Iterator[Server]:
    server = Server(free_port())
    command = [sys.executable, str(HERE / "openai_server.py"), str(server.http)]
    with _process(command, f"http://127.0.0.1:{server.http}/v1/models", folder, 30):
        yield server
