"""The table's files: whole, immutable, swapped by comparison."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from pathlib import Path

import orjson
import pytest

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.condition import CallerIs, HeaderIs, PathIs
from gateway.disk import Occupied
from gateway.split import Copied
from gateway.table import Conflict, TableStore, compile_table, make_document

MODELS = Path(__file__).parents[1] / "models" / "mortgage"
TEXT = f"""
models:
  mortgage:
    headers: {{drop: [x-ssn]}}
    versions: {{v1: {{artifact: {MODELS}/v1}}, v3: {{upstream: 'http://a', artifact: {MODELS}/v3}}}}
    rules:
      - {{name: zulu, when: {{path: /a, header: {{x-b: "é"}}, caller: x}}, split: {{v3: 100%}}}}
      - {{name: alpha, split: {{v3: 99%, v1: 10000ppm}}, shadow: {{v1: 5%}}, salt: pepper}}
    explain: {{background: {MODELS}/background.parquet}}
    monitor: {{reference: {MODELS}/reference.parquet}}
"""


@pytest.fixture
def document(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "headworks.yaml").write_text(TEXT)
    checked = check(tmp_path / "headworks.yaml")
    assert checked.problems == []
    return make_document(
        checked, Artifacts(tmp_path / "state"), author="ana", reason="first", now_ns=1
    )


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(tmp_path / "state")


def test_a_published_table_says_what_the_file_said(
    store: TableStore, document: dict[str, object]
) -> None:
    """Rules in order, shares as intervals, headers as bytes, cards inside."""
    table = store.load(store.publish(document, None))
    model = table.models["mortgage"]
    zulu, alpha = model.rules
    assert zulu.conditions == (
        CallerIs(frozenset("x")), PathIs("/a"), HeaderIs(b"x-b", "é".encode()),
    )  # fmt: skip
    assert (zulu.salt, alpha.salt) == (b"mortgage/zulu", b"pepper")
    assert (alpha.stable, alpha.shadows) == ("v3", (Copied("v1", 50_000),))
    assert [(item.low, item.high, item.version) for item in alpha.intervals] == [(0, 10_000, "v1")]
    assert model.stable is model.versions["v3"]
    assert model.dropped == {b"x-ssn"}
    card = model.versions["v3"].card
    assert card is not None
    assert card.version == "v3"


def test_everything_a_table_names_lies_in_the_state(
    tmp_path: Path, store: TableStore, document: dict[str, object]
) -> None:
    """Artifacts and data are copies by digest: no source file is read after publication."""
    model = store.load(store.publish(document, None)).models["mortgage"]
    artifacts = Artifacts(tmp_path / "state")
    assert model.versions["v1"].artifact is not None
    folder = artifacts.path(model.versions["v1"].artifact)
    assert (folder / "model.onnx").read_bytes() == (MODELS / "v1/model.onnx").read_bytes()
    for digest, name in ((model.background, "background"), (model.reference, "reference")):
        assert digest is not None
        copied = artifacts.file(digest).read_bytes()
        assert copied == (MODELS / f"{name}.parquet").read_bytes()


def test_publishing_compares_and_swaps(store: TableStore, document: dict[str, object]) -> None:
    """Whoever did not know the revision in force changes nothing."""
    first = store.publish(document, None)
    second = store.publish(document, first)
    assert first != second
    for parent in (None, first):
        with pytest.raises(Conflict, match=second):
            store.publish(document, parent)
    assert store.current == second
    told = orjson.loads(store.read(second))
    assert (told["number"], told["parent"]) == (1, first)
    assert orjson.loads(store.read(first))["parent"] is None


def test_of_many_publishers_at_once_one_wins(
    store: TableStore, document: dict[str, object]
) -> None:
    """Each loser is told, by the lock or by the comparison; no publication is lost silently."""
    first = store.publish(document, None)
    won: list[str] = []
    start = threading.Barrier(8)

    def publish() -> None:
        start.wait()
        try:
            won.append(store.publish(document, first))
        except (Conflict, Occupied):
            pass

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.current]


def test_a_changed_revision_is_refused(store: TableStore, document: dict[str, object]) -> None:
    """A revision is its digest: other bytes under its name are never served."""
    revision = store.publish(document, None)
    store.path(revision).write_bytes(store.read(revision).replace(b"990000", b"100000") + b" ")
    with pytest.raises(ValueError, match="does not have its digest"):
        store.load(revision)


def test_a_newer_format_is_refused(document: dict[str, object]) -> None:
    """An old program does not guess at a newer table."""
    with pytest.raises(ValueError, match="format 3 is newer than 2"):
        compile_table(orjson.dumps({**document, "format": 3}))


def test_a_table_of_the_first_format_is_read_for_ever() -> None:
    """What release 0.1 published, as its bytes were."""
    data = (Path(__file__).parent / "formats" / "table-1.json").read_bytes()
    table = compile_table(data)
    assert table.revision == hashlib.sha256(data).hexdigest()
    pilot, everyone = table.models["mortgage"].rules
    assert pilot.conditions == (
        CallerIs(frozenset(["loans-app"])), PathIs("/v2/*"), HeaderIs(b"x-tenant", b"pilot"),
    )  # fmt: skip
    assert (pilot.salt, everyone.shadows) == (b"pepper", (Copied("v3", 1_000_000),))
    assert everyone.limits is table.models["mortgage"].limits
    assert [(item.low, item.high, item.version, item.arm) for item in everyone.intervals] == [
        (0, 100_000, "v2", "canary"),
        (100_000, 300_000, "v3", "canary"),
    ]
    assert (everyone.stable, everyone.rollout, everyone.priority) == ("v1", None, "critical")


def test_a_change_is_told_once(store: TableStore, document: dict[str, object]) -> None:
    """Watchers see each publication once, and nothing where there is no table."""
    assert not store.changed()
    assert store.current is None
    revision = store.publish(document, None)
    assert (store.changed(), store.changed()) == (True, False)
    store.publish(document, revision)
    assert (store.changed(), store.changed()) == (True, False)


CALLS = ("write", "fsync", "replace", "open")


def publish_until(store: TableStore, document: dict[str, object], calls: int) -> bool:
    """Publish in a process that is killed at the call behind so many; whether it ended well."""
    child = os.fork()
    if child == 0:
        left = calls
        real = {name: getattr(os, name) for name in CALLS}

        def counted(name):  # type: ignore[no-untyped-def]
            def call(*arguments, **named):  # type: ignore[no-untyped-def]
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return real[name](*arguments, **named)

            return call

        for name in CALLS:
            setattr(os, name, counted(name))
        store.publish(document, store.current)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


def test_a_kill_at_each_single_write_leaves_one_whole_revision_in_force(
    store: TableStore, document: dict[str, object]
) -> None:
    """Killed anywhere while it publishes: the old or the new revision is in force, whole, and the
    next publication succeeds."""
    first = store.publish(document, None)
    calls = 0
    while not publish_until(store, {**document, "reason": f"try {calls}"}, calls):
        current = store.current
        assert current is not None
        assert store.load(current).document["reason"] in ("first", f"try {calls}", "again")
        store.publish({**document, "reason": "again"}, current)
        calls += 1

    assert calls > 8
    assert store.current != first
