"""Shadows meet their primaries at the seal: in the buffer, in the ledger, or nowhere, as said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.clock import SystemClock
from gateway.exchange import exchange_id
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.writer import open_journal
from gateway.ledger.log import LedgerReader
from gateway.seal import joining
from gateway.seal.sealer import Sealer
from gateway.settings import LedgerSettings
from gateway.table import TableStore, make_document
from gateway.telemetry.metrics import Metrics

MODELS = Path(__file__).parents[2] / "models" / "mortgage"
CONFIG = f"""
models:
  mortgage:
    versions: {{v1: {{artifact: {MODELS}/v1}}, v3: {{artifact: {MODELS}/v3}}}}
    rules: [{{name: all, split: {{v1: 100%}}, shadow: {{v3: 100%}}}}]
  talk:
    protocol: openai
    versions: {{a: {{upstream: 'http://127.0.0.1:1'}}, b: {{upstream: 'http://127.0.0.1:2'}}}}
    rules: [{{name: all, split: {{a: 100%}}, shadow: {{b: 100%}}}}]
"""


class Journalist:
    """Writes exchanges as workers do, and seals them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "headworks.yaml").write_text(CONFIG)
        checked = check(folder / "headworks.yaml")
        assert not checked.problems, checked.problems
        document = make_document(checked, Artifacts(folder), author="test", reason="test", now_ns=0)
        self.revision = TableStore(folder).publish(document, None)
        self.records: list[tuple[dict[str, Any], bytes]] = []

    def says(self, version: str, body: Any, *, primary: str | None = None, model: str = "mortgage",
             status: int = 200, error: str | None = None, noise: bool = False) -> str:  # fmt: skip
        """Queue a record; its id."""
        identity = exchange_id(1_800_000_000_000_000_000)
        talk = model == "talk"
        header = {
            "format": 1, "kind": "exchange", "id": identity, "at": SystemClock().steady(),
            "model": model, "version": version, "status": status, "error": error, "rule": "all",
            "operation": "chat" if talk else "infer", "protocol": "openai" if talk else "v2",
            "arm": "stable" if primary is None else "shadow", "revision": self.revision,
        }  # fmt: skip
        if primary is not None:
            header["primary"] = primary
        if noise:
            header["noise"] = True
        text = body if isinstance(body, bytes) else orjson.dumps(body)
        part = record.Part.of(text, 1 << 20)
        context = {"response_headers": [["content-type", "application/json"]]}
        self.records.append((header, record.encode_parts(context, record.EMPTY, part)))
        return identity

    def write(self) -> None:
        async def work() -> None:
            journal = await open_journal(
                JournalFolder(self.folder, self.folder / "keys", "0"), SystemClock(),
                segment_bytes=1 << 20, stall_s=9, queue_bytes=1 << 26, on_failure=pytest.fail,
            )  # fmt: skip
            for header, parts in self.records:
                await journal.append(header, parts)
            await journal.close()

        asyncio.run(work())
        self.records.clear()

    def seal(self) -> Metrics:
        self.write()
        metrics = Metrics("governor")
        sealer = Sealer(self.folder, self.folder / "keys", SystemClock(), metrics, LedgerSettings())
        while sealer.step():
            pass
        sealer.close()
        return metrics

    def comparison(self, identity: str) -> dict[str, Any]:
        leaves = [orjson.loads(text) for _, text in LedgerReader(self.folder).read(1 << 30)]
        (leaf,) = [leaf for leaf in leaves if leaf["record"].get("id") == identity]
        found: dict[str, Any] = leaf["comparison"]
        return found


@pytest.fixture
def journalist(tmp_path: Path) -> Journalist:
    return Journalist(tmp_path)


def score(value: float) -> dict[str, Any]:
    return {"outputs": [{"name": "score", "shape": [1, 1], "datatype": "FP32", "data": [value]}]}


def chat(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"content": text}}]}


def test_a_shadows_leaf_has_its_comparison(journalist: Journalist) -> None:
    """By the scores of both, with version and arm it was compared with; a primary's has none."""
    given = journalist.says("v1", score(0.1))
    flip = journalist.says("v3", score(0.9), primary=given)
    other = journalist.says("v1", score(0.1))
    same = journalist.says("v3", score(0.1), primary=other)
    metrics = journalist.seal()
    assert journalist.comparison(flip) == {
        "agree": False, "kind": "decision", "reason": "flip", "rows": 1, "severity": 0.8,
        "direction": "approve>deny", "of": {"arm": "stable", "version": "v1"},
        "triples": {"v3": [1, 0]},
    }  # fmt: skip
    assert journalist.comparison(same)["agree"]
    leaves = [text for _, text in LedgerReader(journalist.folder).read(1 << 30)]
    assert 2 == sum(b'"comparison"' in text for text in leaves)
    for result in ("agree", "disagree"):
        labels = {"model": "mortgage", "version": "v3", "result": result}
        assert 1 == metrics.registry.get_sample_value("headworks_comparisons_total", labels)


def test_a_primary_sealed_before_a_start_is_found_in_the_ledger(journalist: Journalist) -> None:
    """Scores come from its leaf, a text from its body, which is read from the store."""
    given = journalist.says("v1", score(0.1))
    said = journalist.says("a", chat("It is so."), model="talk")
    journalist.seal()
    flip = journalist.says("v3", score(0.9), primary=given)
    text = journalist.says("b", chat("it  is so."), primary=said, model="talk")
    journalist.seal()
    assert journalist.comparison(flip)["reason"] == "flip"
    assert journalist.comparison(text) == {
        "agree": True, "kind": "text", "rows": 1, "severity": 0.0,
        "of": {"arm": "stable", "version": "a"},
    }  # fmt: skip


def test_what_cannot_be_joined_says_so(journalist: Journalist) -> None:
    """No such primary; a failure of the shadow alone; a body that only the shadow garbled."""
    alone = journalist.says("v3", score(0.9), primary=exchange_id(0))
    given = journalist.says("v1", score(0.1))
    failed = journalist.says("v3", b"", primary=given, status=504, error="upstream_timeout")
    garbled = journalist.says("v3", b"{", primary=given)
    journalist.seal()
    assert journalist.comparison(alone) == {"not_compared": "primary_missing"}
    assert journalist.comparison(failed)["reason"] == "shadow_failed"
    assert journalist.comparison(garbled)["reason"] == "unreadable"


def test_triples_are_told_by_the_leaf_that_completes_them(journalist: Journalist) -> None:
    """Whichever of second answer and shadow comes last; one count each for the two disagreements
    that McNemar's test is made of."""
    first = journalist.says("a", chat("It is so."), model="talk")
    journalist.says("a", chat("it is so."), primary=first, noise=True, model="talk")
    alone = journalist.says("b", chat("no"), primary=first, model="talk")
    second = journalist.says("a", chat("It is so."), model="talk")
    before = journalist.says("b", chat("It is so."), primary=second, model="talk")
    unsteady = journalist.says("a", chat("no"), primary=second, noise=True, model="talk")
    journalist.seal()
    assert journalist.comparison(alone)["triples"] == {"b": [1, 0]}
    assert "triples" not in journalist.comparison(before)
    told = journalist.comparison(unsteady)
    assert (told["noise"], told["agree"], told["triples"]) == (True, False, {"b": [0, 1]})


def test_a_graph_that_never_draws_is_its_own_second_answer(journalist: Journalist) -> None:
    """Each comparison with it is a triple, without a second call; not so of one that may draw."""
    given = journalist.says("v1", score(0.1))
    same = journalist.says("v3", score(0.1), primary=given)
    journalist.seal()
    assert journalist.comparison(same)["triples"] == {"v3": [0, 0]}

    artifact = next(iter(journalist.folder.glob("artifacts/*/model.onnx")))
    for graph in journalist.folder.glob("artifacts/*/model.onnx"):
        graph.chmod(0o644)
        graph.write_bytes(graph.read_bytes() + b"RandomNormal")
    assert artifact.read_bytes().endswith(b"RandomNormal")
    given = journalist.says("v1", score(0.1))
    flip = journalist.says("v3", score(0.9), primary=given)
    journalist.seal()
    assert "triples" not in journalist.comparison(flip)


def test_the_buffer_is_bounded_in_primaries(
    journalist: Journalist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is missed, and its shadow's leaf says so."""
    monkeypatch.setattr(joining, "PRIMARIES_AT_MOST", 3)
    given = [journalist.says("v1", score(0.1)) for _ in range(4)]
    missed, found = (journalist.says("v3", score(0.1), primary=one) for one in given[:2])
    journalist.seal()
    assert journalist.comparison(missed) == {"not_compared": "primary_missing"}
    assert journalist.comparison(found)["agree"]


def test_the_buffer_is_bounded_in_bytes(
    journalist: Journalist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that it has no room for is read from the store, once it is written there."""
    monkeypatch.setattr(joining, "BODIES_BYTES_AT_MOST", 150)
    monkeypatch.setattr("gateway.seal.sealer.CHUNK", 3)
    said = [journalist.says("a", chat("It is so."), model="talk") for _ in range(3)]
    texts = [journalist.says("b", chat("no"), primary=one, model="talk") for one in said]
    journalist.seal()
    assert [journalist.comparison(one)["reason"] for one in texts] == ["text"] * 3


def test_sealing_is_the_same_after_a_crash(journalist: Journalist) -> None:
    """A sealer that is given up between two steps leaves the comparison to the next one."""
    given = journalist.says("v1", score(0.1))
    journalist.write()
    journalist.seal()
    flip = journalist.says("v3", score(0.9), primary=given)
    journalist.write()
    for _ in range(2):
        journalist.seal()
    assert journalist.comparison(flip)["direction"] == "approve>deny"
