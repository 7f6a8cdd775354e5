"""`headworks route export`: the file that it writes loads to the same table."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest
import yaml

from gateway.artifacts import Artifacts
from gateway.check import Checked, check
from gateway.revision.edit import read_edit
from gateway.revision.revisions import TOLD, Revisions
from gateway.revision.tablefile import write_table
from gateway.table import TableStore

MODELS = Path(__file__).parents[1] / "models" / "mortgage"
TEXT = """
workers: 2
listen: {admin: 127.0.0.1:0}
callers: [{name: loans-app, key_sha256: "AAA", may: [context]}]
people: [{name: ana, token_sha256: "BBB", roles: [sre]}]
alerts: {webhook: {url: 'http://127.0.0.1:9/x', secret: 'env:HOOK'}}
models:
  mortgage:
    unit: [header:x-applicant, exchange]
    limits: {request: 3MiB, in_flight: 7}
    timeouts: {request: 1500ms}
    retries: {on: [connect]}
    retention: 90d
    context: {routable: [channel]}
    versions:
      v1: {artifact: mortgage/v1}
      v3: {endpoints: ['http://a', 'http://b'], artifact: mortgage/v3, auth: {from: env:T}}
    rules:
      - {name: pilot, when: {header: {x-tenant: "é"}, context: {channel: web}}, split: {v3: 100%}}
      - {name: everyone, split: {v1: 95%, v3: 5%},
         shadow: {v3: {share: 1%, when: {method: PUT}}}}
    explain: {background: mortgage/background.parquet}
    monitor: {reference: mortgage/reference.parquet, groups: [race]}
""".replace("AAA", "a" * 64).replace("BBB", "b" * 64)


@pytest.fixture
def revisions(tmp_path: Path) -> Revisions:
    shutil.copytree(MODELS, tmp_path / "mortgage")
    state = tmp_path / "state"
    made = Revisions(TableStore(state), Artifacts(state), lambda: 1)
    made.adopt(checked(tmp_path, TEXT), author="ana", reason="start")
    return made


def checked(folder: Path, text: str) -> Checked:
    (folder / "headworks.yaml").write_text(text)
    found = check(folder / "headworks.yaml")
    assert not found.problems, found.problems
    return found


def test_what_is_written_loads_to_the_same_table(tmp_path: Path, revisions: Revisions) -> None:
    """After an edit: the file with the edit in it, ports and folders as they were; all the same."""
    revision, document = revisions.current()
    edit = read_edit(
        b"reason: for a test\nmodels: {mortgage: {rules: [{name: all, split: {v3: 100%}}]}}",
        document,
    )
    revisions.edit(edit, author="ben", expected=revision)
    _, before = revisions.current()
    text = write_table(before, check(tmp_path / "headworks.yaml"), revisions.artifacts)
    told = yaml.safe_load(text)
    assert (told["workers"], told["listen"]) == (2, {"admin": "127.0.0.1:0"})
    assert told["models"]["mortgage"]["rules"] == [{"name": "all", "split": {"v3": "100%"}}]
    assert told["models"]["mortgage"]["versions"]["v1"] == {"artifact": "mortgage/v1"}
    revisions.adopt(checked(tmp_path, text), author="ana", reason="as exported")
    _, after = revisions.current()
    assert {key: after[key] for key in TOLD} == {key: before[key] for key in TOLD}


def test_a_source_that_changed_is_named_by_its_copy(tmp_path: Path, revisions: Revisions) -> None:
    """What is in force is written, not what lies at the old place by now."""
    _, before = revisions.current()
    shutil.rmtree(tmp_path / "mortgage" / "v1")
    shutil.copyfile(
        tmp_path / "mortgage" / "reference.parquet", tmp_path / "mortgage" / "background.parquet"
    )
    at_hand = check(tmp_path / "headworks.yaml")
    text = write_table(before, at_hand, revisions.artifacts)
    model = yaml.safe_load(text)["models"]["mortgage"]
    artifact = before["models"]["mortgage"]["versions"]["v1"]["artifact"]
    assert model["versions"]["v1"]["artifact"] == str(tmp_path / "state" / "artifacts" / artifact)
    revisions.adopt(checked(tmp_path, text), author="ana", reason="as exported")
    _, after = revisions.current()
    for settings in (after, before):
        settings["models"]["mortgage"]["explain"].pop("background")
        settings["models"]["mortgage"]["monitor"].pop("reference")
    assert orjson.dumps(after["models"]) == orjson.dumps(before["models"])
