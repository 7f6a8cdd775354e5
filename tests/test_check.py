"""`headworks check`: everything that is wrong, at once, each with its line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.check import Checked, check
from gateway.cli import warnings
from gateway.dataplane.limits import effective

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models" / "mortgage"
TEN = f"""\
listen: {{data: localhost, admin: 0.0.0.0:9901}}
worker: 2
state: ./state
keys: ./state/keys
callers:
  - {{name: app, key_sha256: nonsense, may: [context]}}
models:
  mortgage:
    unit: [header:X-Upper]
    limits: {{request: 64MB}}
    timeouts: {{request: 2}}
    versions:
      v1: {{artifact: {MODELS}/v1}}
      v2: {{artifact: {MODELS}/v1}}
      v3: {{artifact: ./nowhere}}
      v4: {{}}
    rules:
      - {{name: all, split: {{v1: 95%, v9: 6%}}}}
      - {{name: all, when: {{header: {{x-headworks-subject: a}}}}, split: {{v1: 100%}}}}
    monitor: {{reference: ./none.parquet}}
"""
EXPECTED = {
    (1, "listen.data"), (1, "listen.admin"), (2, "worker"), (4, "keys"),
    (6, "callers.0.key_sha256"), (9, "models.mortgage.unit.0"),
    (10, "models.mortgage.limits.request"), (11, "models.mortgage.timeouts.request"),
    (14, "models.mortgage.versions.v2.artifact"), (15, "models.mortgage.versions.v3.artifact"),
    (16, "models.mortgage.versions.v4"), (18, "models.mortgage.rules.0.split"),
    (18, "models.mortgage.rules.0.split.v9"),
    (19, "models.mortgage.rules.1.name"),
    (19, "models.mortgage.rules.1.when.header.x-headworks-subject"),
    (20, "models.mortgage.monitor.reference"),
}  # fmt: skip


def checked(folder: Path, text: str | bytes, **overrides: str) -> Checked:
    path = folder / "headworks.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return check(path, overrides)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """No mistake hides another, each names its key and its own line, in the file's order."""
    found = checked(tmp_path, TEN)
    assert {(problem.line, problem.key) for problem in found.problems} == EXPECTED
    assert len(found.problems) == len(EXPECTED)
    assert [problem.line for problem in found.problems] == sorted(p.line for p in found.problems)
    assert found.settings is None


def test_a_problem_says_what_is_allowed(tmp_path: Path) -> None:
    """File, line, key, value, and what would be right."""
    told = "\n".join(map(str, checked(tmp_path, TEN).problems))
    for words in (
        "headworks.yaml:2: worker: unknown key; workers is meant?",
        "headworks.yaml:10: models.mortgage.limits.request = '64MB': a size with its unit",
        "its card is of mortgage/v1",
        "there is no such folder",
        "shares sum to 101%",
        "no such version; known: v1, v2, v3, v4",
        "keys never lie inside `state`",
    ):
        assert words in told


def test_the_example_is_right() -> None:
    """The file we ship passes its own check, with the cards of its versions."""
    found = check(ROOT / "headworks.yaml")
    assert found.problems == []
    assert set(found.cards) == {("mortgage", "v1"), ("mortgage", "v2"), ("mortgage", "v3")}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "is empty"),
        ("- a\n", 1, "a mapping of settings is wanted"),
        ("a: 1\nb: [\n", 3, "not YAML"),
        ("a: 1\nb: \t2\n\tc: 3", 2, "not YAML"),
        ("models: 3\nmodels: 4\n", 2, "stands twice"),
        (b"a: 1\nb: \xff\n", 2, "not YAML"),
        (b"a: 1\nb: \0\n", 2, "not YAML"),
        ("a: 1\n? [x, y]\n: 1\n", 2, "not YAML"),
        ("a: &a [*a]\n", 1, "unknown key"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "not YAML"),
        ("models: " + "[" * 20_000, 1, "nested too deep"),
        ("models: {}\n", 1, "at least 1 item"),
        ("workers: 0\nmodels: {}\n", 1, "greater than or equal to 1"),
        ("callers:\n- {name: [a]}\n- {name: [a]}\nmodels: {}\n", 3, "stands twice"),
        ("models:\n  m:\n    rules: [{name: [a]}, {name: {}}]\n", 3, "valid string"),
        ("models: {1: 2}\n", 1, "valid"),
        ("people:\n- name: controller\nmodels: {}\n", 2, "call the gateway itself"),
    ],
)
def test_a_broken_file_is_a_problem_not_a_traceback(
    tmp_path: Path, text: str | bytes, line: int, words: str
) -> None:
    """Bytes that are no text, no YAML, or no settings are told with their line."""
    found = checked(tmp_path, text)
    assert found.settings is None
    assert any(p.line == line and words in p.allowed for p in found.problems), found.problems


@pytest.mark.timeout(10)
def test_aliases_cost_nothing(tmp_path: Path) -> None:
    """A list of lists a billion times over is noted once."""
    text = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    assert checked(tmp_path, text).settings is None


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    """Not a traceback."""
    found = check(tmp_path / "none.yaml")
    assert [problem.allowed for problem in found.problems] == [
        "cannot be read: No such file or directory"
    ]


def test_an_artifact_other_than_its_cards_is_refused(tmp_path: Path) -> None:
    """The card's digest is held against the file."""
    folder = tmp_path / "v1"
    folder.mkdir()
    (folder / "card.yaml").write_bytes((MODELS / "v1/card.yaml").read_bytes())
    (folder / "model.onnx").write_bytes((MODELS / "v1/model.onnx").read_bytes() + b"\0")
    rules = "[{name: a, split: {v1: 100%}}]"
    text = f"models: {{mortgage: {{versions: {{v1: {{artifact: v1}}}}, rules: {rules}}}}}"
    (problem,) = checked(tmp_path, text).problems
    assert (problem.file, problem.key) == ("v1/card.yaml", "artifact.sha256")
    assert problem.allowed.startswith("the file's digest is ")


def test_limits_of_one_worker(tmp_path: Path) -> None:
    """Declared for the gateway, divided by the workers, rounded up; 0 stays 0."""
    text = (
        "models: {m: {limits: {in_flight: 5, pending: 0, connections: 1}, versions: {v:"
        " {upstream: 'http://a'}}, rules: [{name: a, split: {v: 100%}}]}}"
    )
    found = checked(tmp_path, text).settings
    assert found is not None
    each = effective(found, 4)
    assert each["clients.connections"] == 1250
    shares = [each[f"models.m.limits.{what}"] for what in ("in_flight", "pending", "connections")]
    assert shares == [2, 0, 1]


def test_overrides_are_laid_over_the_file(tmp_path: Path) -> None:
    """What the environment says wins, and is checked like the file."""
    text = (
        "models: {m: {versions: {v: {upstream: 'http://a'}}, rules: [{name: a, split: {v: 100%}}]}}"
    )
    found = checked(tmp_path, text, workers="3")
    assert found.settings is not None
    assert found.settings.workers == 3
    (problem,) = checked(tmp_path, text, **{"journal.stall": "5"}).problems
    assert problem.key == "journal.stall"


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
@given(st.data())
def test_a_file_with_anything_in_any_place_is_told(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever stands in whatever place, check answers."""
    lines = TEN.splitlines()
    junk = st.sampled_from(
        ["[]", "{}", "3", "null", "[[1]]", "{1: 2}", "'\\0'", "2026-01-01", "!!binary aGk=", "~: ~"]
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        key, _, rest = lines[at].partition(":")
        lines[at] = data.draw(st.sampled_from([f"{key}: ", f"{key}: {rest} ", ""])) + data.draw(
            junk
        )
    assert checked(tmp_path, "\n".join(lines)).settings is None


def test_on_is_a_word(tmp_path: Path) -> None:
    """`retries.on` needs no quotes: only true and false are truth values."""
    text = """
models:
  m:
    versions: {v1: {upstream: 'http://a'}}
    rules: [{name: all, split: {v1: 100%}}]
    retries: {on: [connect], one: 1}
"""
    (problem,) = checked(tmp_path, text).problems
    assert (problem.key, problem.allowed) == ("models.m.retries.one", "unknown key; on is meant?")


def test_decisions_are_compared_by_cards(tmp_path: Path) -> None:
    """A model whose version has none cannot be told to compare decisions; the line says which."""
    text = f"""\
models:
  mortgage:
    compare: {{kind: KIND, near_tie: 0.01, ignore: [/id]}}
    versions: {{v1: {{artifact: {MODELS}/v1}}, v2: {{upstream: 'http://127.0.0.1:1'}}}}
    rules: [{{name: all, split: {{v1: 100%}}, shadow: {{v2: 100%}}}}]
"""
    (problem,) = checked(tmp_path, text.replace("KIND", "decision")).problems
    assert (problem.line, problem.key) == (3, "models.mortgage.compare.kind")
    assert "v2" in problem.allowed
    assert checked(tmp_path, text.replace("KIND", "json")).problems == []
    (problem,) = checked(tmp_path, text.replace("KIND", "nearly")).problems
    assert problem.key == "models.mortgage.compare.kind"


def test_a_card_alone_is_for_a_version_that_is_served_elsewhere(tmp_path: Path) -> None:
    """With an upstream and no artifact: read and kept. An artifact's card must have the digest of
    its model; beside an artifact, or where there is no such file, it is refused."""
    card = yaml.safe_load((ROOT / "models" / "mortgage" / "v1" / "card.yaml").read_text())
    del card["artifact"]
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    (tmp_path / "v1").mkdir()
    shutil.copy(tmp_path / "card.yaml", tmp_path / "v1" / "card.yaml")

    def problems(version: str) -> Checked:
        file = tmp_path / "headworks.yaml"
        file.write_text(f"models: {{mortgage: {{versions: {{v1: {version}}}, "
                        "rules: [{name: all, split: {v1: 100%}}]}}")  # fmt: skip
        return check(file)

    fine = problems("{upstream: 'http://127.0.0.1:9', card: card.yaml}")
    assert fine.problems == []
    assert fine.cards["mortgage", "v1"].artifact is None
    for version, words in (
        ("{upstream: 'http://127.0.0.1:9', card: none.yaml}", "there is no such file"),
        ("{artifact: v1}", "`artifact` with the digest of model.onnx is missing"),
        ("{artifact: v1, card: card.yaml}", "`card` is for a version without one"),
        ("{card: card.yaml}", "needs an `artifact`, an `upstream` or both"),
    ):
        assert words in " ".join(map(str, problems(version).problems))


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ("{slices: [channel, channel]}", "a key stands twice"),
        ("{slices: [channel], baseline: week}", "needs monitor.baseline: rolling, not week"),
    ],
)
def test_slices_need_their_own_past_and_stand_once(tmp_path: Path, told: str, problem: str) -> None:
    """Settings of slices that could not be followed are refused at their line."""
    text = f"""
models:
  mortgage:
    versions: {{v1: {{artifact: {MODELS}/v1}}}}
    rules: [{{name: all, split: {{v1: 100%}}}}]
    monitor: {told}
"""
    (found,) = checked(tmp_path, text).problems
    assert found.key == "models.mortgage.monitor.slices"
    assert problem in found.allowed


@pytest.mark.parametrize(
    ("monitor", "told"),
    [
        ("monitor: {groups: [race]}", [7]),
        ("monitor: {reference: ./sample.parquet}", []),
        ("", []),
    ],
)
def test_monitoring_that_has_nothing_to_compare_with_is_told(
    tmp_path: Path, monitor: str, told: list[int]
) -> None:
    """`monitor` without a sample of a card's features closes no window, at its line. A model whose
    versions have no card, or that does not ask for monitoring, is no mistake."""
    shutil.copy(ROOT / "models/mortgage/reference.parquet", tmp_path / "sample.parquet")
    text = f"""
models:
  mortgage:
    versions: {{v1: {{artifact: {MODELS}/v1}}}}
    rules: [{{name: all, split: {{v1: 100%}}}}]
    compare: {{kind: json}}
    {monitor}
  remote:
    versions: {{v1: {{upstream: 'http://127.0.0.1:1'}}}}
    rules: [{{name: all, split: {{v1: 100%}}}}]
    monitor: {{groups: [race]}}
"""
    found = checked(tmp_path, text)
    assert found.problems == []
    odd = warnings(found)
    assert [one["line"] for one in odd] == told
    assert all(one["key"] == "models.mortgage.monitor" for one in odd)


def test_a_detector_that_is_not_installed_is_told(tmp_path):
    """At its line; with its interpreter in the state nothing is odd."""
    text = f"""
models:
  mortgage:
    versions: {{v1: {{artifact: {MODELS}/v1}}}}
    rules: [{{name: all, split: {{v1: 100%}}}}]
    monitor:
      reference: {MODELS}/reference.parquet
      detector: alibi.KSDrift
"""
    found = checked(tmp_path, text)
    (odd,) = warnings(found)
    assert (odd["line"], odd["key"]) == (8, "models.mortgage.monitor.detector")
    assert odd["words"] == "is not installed: `headworks detectors install alibi`"
    pointer = found.resolve(found.settings.state) / "detectors" / "alibi.json"
    pointer.parent.mkdir(parents=True)
    pointer.write_text('{"python": "/opt/alibi/bin/python", "version": "0.11.4"}')
    assert warnings(found) == []
