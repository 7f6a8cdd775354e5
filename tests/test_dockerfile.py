"""The Dockerfile without an engine: what it says is parsed, and its steps run in a plain folder.

`Root` plays an image: absolute paths of the image lie below a temporary folder, RUN is a shell,
COPY copies what .dockerignore lets through. One step cannot be played, the one that makes the user;
its words are compared with USER and VOLUME instead.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.check import check
from gateway.compiler import MODULES
from gateway.reference import environment_names

ROOT = Path(__file__).parent.parent
IMAGE_FOLDERS = ("/opt/headworks", "/etc/headworks", "/var/lib/headworks", "/build")
UID = 10001


@dataclass(frozen=True)
class Step:
    stage: int
    word: str
    text: str


def read_steps() -> list[Step]:
    """The instructions, continued lines joined; the stage counts FROM."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines()
             if line.strip() and not line.lstrip().startswith("#")]  # fmt: skip
    stage, steps = -1, []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, text = line.strip().partition(" ")
        stage += word == "FROM"
        steps.append(Step(stage, word, " ".join(text.split())))
    return steps


STEPS = read_steps()
LAST = STEPS[-1].stage
COPIES = [step for step in STEPS if step.word == "COPY" and not step.text.startswith("--from")]


def only(word: str, stage: int = LAST) -> str:
    (text,) = [step.text for step in STEPS if (step.stage, step.word) == (stage, word)]
    return text


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(only("ENV")))


def healthcheck() -> list[str]:
    return list(json.loads(only("HEALTHCHECK").partition(" CMD ")[2]))


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last pattern that fits it holds."""
    sent = True
    ancestors = [path, *map(str, Path(path).parents)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        names = [Path(name).name for name in ancestors] if pattern.startswith("**/") else ancestors
        if pattern and not pattern.startswith("#"):
            wanted = pattern.removeprefix("**/")
            if any(name != "." and fnmatch.fnmatchcase(name, wanted) for name in names):
                sent = line.startswith("!")
    return sent


class Root:
    """An image's file system, as far as this Dockerfile uses it, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": f"{folder / 'base/bin'}:/usr/bin:/bin", "LANG": "C.UTF-8"}
        passed = ("PIP_CERT", "PIP_FIND_LINKS", "PIP_INDEX_URL", "SSL_CERT_FILE", "HTTPS_PROXY")
        self.environment |= {name: os.environ[name] for name in passed if name in os.environ}
        self.workdir = "/"

    def place(self, text: str) -> str:
        for name in IMAGE_FOLDERS:
            text = re.sub(rf"(?<![\w.]){name}\b", f"{self.folder}{name}", text)
        return text

    def copy(self, step: Step) -> None:
        *sources, target = step.text.split()
        for source in sources:
            path = target if target.startswith("/") else f"{self.workdir}/{target}"
            place = Path(self.place(path))
            if target.endswith("/"):
                place /= Path(source).name
            copy_sent(source, place)

    def run(self, text: str) -> None:
        command = self.place(text)
        where = self.place(self.workdir)
        subprocess.run(command, shell=True, check=True, cwd=where, env=self.environment)

    def take_environment(self) -> None:
        for name, value in environment().items():
            expanded = value.replace("$PATH", self.environment["PATH"])
            self.environment[name] = self.place(expanded)


def copy_sent(source: str, place: Path) -> None:
    """COPY of one source: a file as it is, a folder's content."""
    whole = ROOT / source
    files = [whole] if whole.is_file() else [path for path in whole.rglob("*") if path.is_file()]
    for path in files:
        if is_sent(str(path.relative_to(ROOT))):
            to = place if whole.is_file() else place / path.relative_to(whole)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, to)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_healthy(env: dict[str, str]) -> bool:
    """The HEALTHCHECK's own command, in the container's environment."""
    found = subprocess.run(healthcheck(), env=env, capture_output=True, timeout=20)
    return found.returncode == 0


@contextmanager
def serving(command: list[str], env: dict[str, str], **how: int) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs; it must be healthy within half a minute, and end with 0."""
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, **how)
    try:
        until = time.monotonic() + 30
        while not is_healthy(env):
            running = process.poll() is None and time.monotonic() < until
            assert running, process.stderr.read() if process.poll() is not None else "not ready"
            time.sleep(0.1)
        yield process
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=45)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def on_free_ports(env: dict[str, str]) -> dict[str, str]:
    """The same settings, on ports that nobody has; the data port stays open to all."""
    assert env["HEADWORKS_LISTEN_DATA"] == "0.0.0.0:8080"
    ports = {"DATA": f"0.0.0.0:{free_port()}", "ADMIN": f"127.0.0.1:{free_port()}"}
    return env | {f"HEADWORKS_LISTEN_{name}": address for name, address in ports.items()}


def test_each_source_of_a_copy_exists_and_is_sent():
    """A build ends at the first COPY whose source is absent, or kept back by .dockerignore."""
    sources = [source for step in COPIES for source in step.text.split()[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not is_sent(source)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "keys/master",
        "state/lock",
        "demo.log",
        "gateway/__pycache__/a.pyc",
        "gateway/__compiled__/manifest.json",
    ],
)
def test_secrets_and_leftovers_stay_here(path: str):
    """Neither keys nor records nor history ever reach the engine, let alone the image."""
    assert not is_sent(path)
    assert is_sent("gateway/journal/writer.py")


def test_nobody_runs_as_root():
    """The final stage's user is a number (as orchestrators check it), made with that number."""
    assert int(only("USER")) == UID
    assert f"--uid {UID} " in only("RUN")
    order = [step.word for step in STEPS if step.stage == LAST]
    assert order.index("RUN") < order.index("USER") < order.index("CMD")


def test_state_and_keys_lie_in_the_users_volume_apart():
    """What must last is in the volume, which is the user's alone; keys are not inside state."""
    (volume,) = json.loads(only("VOLUME"))
    words = f"install --directory --mode=0700 --owner={UID} --group=headworks {volume}"
    assert only("RUN").endswith(words)
    state, keys = (Path(environment()[f"HEADWORKS_{name}"]) for name in ("STATE", "KEYS"))
    assert state.parent == keys.parent == Path(volume)
    assert state != keys


def test_the_final_stage_has_nothing_of_the_build_but_its_result():
    """Neither pip nor sources: the one thing taken is the environment that was built."""
    taken = [step.text for step in STEPS if step.stage == LAST and "--from" in step.text]
    assert taken == ["--from=build /opt/headworks /opt/headworks"]
    assert any("python -m venv --without-pip /opt/headworks" in step.text for step in STEPS)


def test_ports_and_variables_are_the_programs_own():
    """EXPOSE has both of the demo's ports; each HEADWORKS_ variable of ENV is one it reads."""
    demo = check(ROOT / "headworks.yaml").settings
    assert demo is not None
    listeners = (demo.listen.of("data"), demo.listen.of("admin"))
    ports = {listener.address.rpartition(":")[2] for listener in listeners}
    assert set(only("EXPOSE").split()) == ports
    ours = {name for name in environment() if name.startswith("HEADWORKS_")}
    assert ours <= environment_names().keys()


def test_bases_fit_the_package():
    """Both stages have one Python, which the package takes; the first has a C compiler too."""
    bases = [step.text.split()[0] for step in STEPS if step.word == "FROM"]
    assert bases == ["python:3.11", "python:3.11-slim"]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == ">=3.11"


def test_the_copied_demo_is_a_whole_configuration(tmp_path: Path):
    """With the image's variables, what is copied is all that its headworks.yaml names."""
    root = Root(tmp_path)
    root.workdir = only("WORKDIR")
    for step in COPIES:
        if step.stage == LAST:
            root.copy(step)
    root.take_environment()
    names = environment_names()
    laid = {key: root.environment[name] for name, key in names.items() if name in root.environment}
    config = json.loads(only("CMD"))[-1]
    checked = check(Path(root.place(config)), laid)
    assert checked.problems == []
    assert checked.settings is not None
    assert checked.resolve(checked.settings.state) == tmp_path / "var/lib/headworks/state"


def test_the_healthcheck_follows_a_running_gateway(tmp_path: Path):
    """It fails before the start, holds while `headworks serve` is ready, fails after the end."""
    root = Root(tmp_path)
    root.take_environment()
    env = on_free_ports(root.environment)
    env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env["PYTHONPATH"] = str(ROOT)
    env["http_proxy"] = "http://127.0.0.1:1"
    assert not is_healthy(env)
    _, *arguments, _ = json.loads(only("CMD"))
    command = [sys.executable, "-m", "gateway", *arguments, str(ROOT / "headworks.yaml")]
    with serving(command, env):
        assert is_healthy(env)
    assert not is_healthy(env)


def build(root: Root) -> None:
    """Every step but the one that makes the user, in order, below the root."""
    subprocess.run([sys.executable, "-m", "venv", root.folder / "base"], check=True)
    for step in STEPS:
        if step.word == "WORKDIR":
            root.workdir = step.text
            Path(root.place(step.text)).mkdir(parents=True, exist_ok=True)
        elif step in COPIES:
            root.copy(step)
        elif step.word == "COPY":
            _, source, target = step.text.split()
            assert source == target  # so that it is there already
        elif step.word == "ENV":
            root.take_environment()
        elif step.word == "RUN" and "useradd" not in step.text:
            root.run(step.text)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user may enter, as pytest's own ones may not be."""
    folder = Path(tempfile.mkdtemp(prefix="headworks-image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_image_builds_and_serves_the_demo(open_folder: Path):
    """Built from PyPI by the Dockerfile's own commands, it answers in its compiled form, and
    writes in its volume only.

    Where the tests are root's, and their Python is not locked up there, it runs as its user.
    """
    root = Root(open_folder)
    build(root)
    volume = Path(root.place("/var/lib/headworks"))
    volume.mkdir(parents=True)
    how = {}
    if os.geteuid() == 0 and is_open_to_all(Path(sys.base_prefix)):
        os.chown(volume, UID, UID)
        how = {"user": UID, "group": UID}
    env = on_free_ports(root.environment)
    program, *arguments, config = json.loads(only("CMD"))
    found = shutil.which(program, path=env["PATH"])
    assert found == root.place(f"/opt/headworks/bin/{program}")
    said = subprocess.run([found, "version"], env=env, capture_output=True, text=True, check=True)
    assert f"{len(MODULES)} modules compiled" in said.stdout
    before = files_outside(volume, open_folder)
    with serving([found, *arguments, root.place(config)], env, **how):
        assert answered(env["HEADWORKS_LISTEN_DATA"].rpartition(":")[2]) == 200
    assert files_outside(volume, open_folder) == before
    assert {path.name for path in volume.iterdir()} == {"state", "keys"}


def is_open_to_all(folder: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))


def files_outside(volume: Path, folder: Path) -> set[tuple[Path, int]]:
    """Each file that is not the volume's, with the time of its last change."""
    return {(path, path.stat().st_mtime_ns) for path in folder.rglob("*")
            if path.is_file() and volume not in path.parents}  # fmt: skip


def answered(port: str) -> int:
    """The status of an answer to an application within the card's ranges."""
    inputs = [
        {
            "name": feature.carrier,
            "shape": [1, 1],
            "datatype": "BYTES" if feature.categories else "FP32",
            "data": [feature.categories[0] if feature.categories else feature.range[0]],
        }
        for feature in check(ROOT / "headworks.yaml").cards["mortgage", "v1"].features
    ]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/mortgage/infer",
        json.dumps({"inputs": inputs}).encode(),
        {"content-type": "application/json", "authorization": "Bearer demo-key"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)
