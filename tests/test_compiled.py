"""The compiled form: when it runs, when it does not, and that it does what the sources do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from world import running

from gateway import FORM
from gateway.compiled import MANIFEST, SWITCH, Finder, Form, digest, form
from gateway.compiler import MODULES

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "dataplane",
    "journal",
    "routing",
    "protocol",
    "telemetry",
    "seal",
    "ledger",
    "comparison",
)
"""Whose tests hold in the compiled form: of all that the compiled modules are about."""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of two sources, with a manifest of them as they are."""
    package = tmp_path / "gateway"
    (package / "__compiled__").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("ONE = 1\n")
    told = {"sources": digest(package), "suffix": EXTENSION_SUFFIXES[0], "modules": ["gateway.one"]}
    (package / "__compiled__" / MANIFEST).write_text(json.dumps(told))
    return package


def test_the_form_of_unchanged_sources_runs(package: Path):
    """With the manifest's own sources, its modules are loaded compiled."""
    assert form(package, {}) == Form("compiled", ("gateway.one",))
    assert str(form(package, {})) == "1 modules compiled"


def test_without_a_manifest_the_sources_run(package: Path):
    """Nothing compiled, or not wholly: the folder itself says nothing."""
    (package / "__compiled__" / MANIFEST).unlink()
    assert form(package, {}) == Form("source")


@pytest.mark.parametrize("change", ["changed", "new", "gone", "renamed"])
def test_any_other_source_makes_it_stale(package: Path, change: str):
    """One byte, one file more or less, of whatever module: all run from source, and it is said."""
    if change == "changed":
        (package / "one.py").write_text("ONE = 2\n")
    elif change == "new":
        (package / "two.py").write_text("")
    elif change == "gone":
        (package / "one.py").unlink()
    else:
        (package / "one.py").rename(package / "eno.py")
    assert form(package, {}) == Form("stale")
    assert "scripts/compile" in str(form(package, {}))


def test_of_another_python_it_is_stale(package: Path):
    """Machine code for another Python or machine is not for this one."""
    path = package / "__compiled__" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"suffix": ".cpython-39-other.so"}))
    assert form(package, {}) == Form("stale")


def test_the_switch_runs_the_sources(package: Path):
    """Whoever wants to rule the compiled form out can."""
    assert form(package, {SWITCH: "no"}) == Form("source")


def test_what_python_caches_is_no_source(package: Path):
    """A run leaves caches behind; they change nothing."""
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "one.py").write_text("")
    assert form(package, {}).state == "compiled"


def test_only_what_is_named_is_found(tmp_path: Path):
    """The finder leaves all other modules to Python."""
    finder = Finder(tmp_path, ("gateway.one",))
    found = finder.find_spec("gateway.one", None)
    assert found is not None
    assert found.origin == f"{tmp_path}/gateway/one{EXTENSION_SUFFIXES[0]}"
    assert finder.find_spec("gateway.two", None) is None


def test_the_named_modules_are_there():
    """In order, each once, each a source of ours."""
    assert sorted(set(MODULES)) == list(MODULES)
    absent = [name for name in MODULES if not (ROOT / f"{name.replace('.', '/')}.py").is_file()]
    assert absent == []


def test_without_a_compiler_nothing_is_touched(tmp_path: Path):
    """The refusal names what is missing, and what was compiled before stays."""
    command = [sys.executable, "-m", "gateway.compiler"]
    environment = {**os.environ, "CC": "no-such-compiler"}
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "gateway/__compiled__").rglob("*")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no-such-compiler is not on the PATH" in done.stderr
    after = {path: path.stat().st_mtime_ns for path in (ROOT / "gateway/__compiled__").rglob("*")}
    assert before == after


def test_a_worker_says_which_form_it_runs(tmp_path: Path):
    """By a metric: the number of its compiled modules."""
    with running(tmp_path) as world:
        world.worker._tell_numbers()
        told = world.worker.metrics.registry.get_sample_value(
            "headworks_compiled_modules", {"worker": "0"}
        )
        assert told == len(FORM.modules)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop(SWITCH, None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_compiled_form_passes_the_tests(tmp_path: Path):
    """Compiled in a copy of the tree, the data path's and the ledger's tests hold; with a source
    changed, the sources run."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    taken = subprocess.run(
        ["tar", "--create", "--null", "--files-from=-"], cwd=ROOT, input=names,
        capture_output=True, check=True,
    )  # fmt: skip
    subprocess.run(["tar", "--extract"], cwd=tmp_path, input=taken.stdout, check=True)
    built = run(tmp_path, "-m", "gateway.compiler")
    assert built.returncode == 0, built.stderr
    said = run(tmp_path, "-m", "gateway", "version").stdout
    assert f"{len(MODULES)} modules compiled" in said
    folders = [f"tests/{name}" for name in FOLDERS]
    tested = run(tmp_path, "-m", "pytest", "-q", "-m", "not long", *folders)
    assert tested.returncode == 0, tested.stdout[-5000:]
    with (tmp_path / "gateway" / "exchange.py").open("a") as source:
        source.write("\n# changed\n")
    assert "from source: what is compiled" in run(tmp_path, "-m", "gateway", "version").stdout
