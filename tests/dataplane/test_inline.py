"""Reasons in answers, by the real worker; the test makes the plan, as the analyst does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from world import MODELS, World, applicants, config, running, until

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.explain.worker import Asked, Explanations, in_clear

BACKGROUND = MODELS / "background.parquet"


def text(more: str = "inline: true", versions: str = "v1") -> str:
    return config(
        f"""
expose: [id]
versions: {{{versions}: {{artifact: {MODELS}/{versions}}}}}
rules: [{{name: all, split: {{{versions}: 100%}}}}]
explain: {{{more}, background: {BACKGROUND}}}
"""
    )


def denied(rows: int = 1, good: int = 0) -> bytes:
    """`rows` of people who are denied, then as many as said who are not."""

    def tensor(name: str, bad: float, fine: float) -> dict[str, Any]:
        return {"name": name, "shape": [rows + good, 1], "datatype": "FP32",
                "data": [bad] * rows + [fine] * good}  # fmt: skip

    return applicants(
        rows + good, dir=tensor("dir", 0.9, 0.2), lvr=tensor("lvr", 1.2, 0.5),
        ccs=tensor("ccs", 6, 1), mcs=tensor("mcs", 4, 1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


def explanations(world: World) -> Explanations:
    return Explanations(Artifacts(world.state))


def plan(world: World) -> None:
    """What the analyst does when a revision comes into force; then the worker sees it."""
    live = world.worker.handler.live
    assert live is not None
    explanations(world).plan(live.table)


async def reasoned(world: World) -> None:
    """Until answers have their reasons."""
    live = world.worker.handler.live
    assert live is not None
    (session,) = {backend.session for backend in live.backends.values()}
    await until(lambda: session and session.inline and session.inline._plan)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_answer_has_the_reasons_of_the_explanation(world: World, version: str) -> None:
    """Codes by comma, rows by semicolon, none where the outcome is not adverse: those that the
    analyst says of the same exchange, and the record says what was given."""

    async def story() -> None:
        await world.serve(text(versions=version))
        plan(world)
        await reasoned(world)
        reply = await world.ask(denied(2, good=1))
        told = await world.record_of(reply)
        live = world.worker.handler.live
        assert live is not None
        model = live.table.models["mortgage"]
        tensors = orjson.loads(told.request.kept)["inputs"]
        sent = {tensor["name"]: tensor["data"] for tensor in tensors}
        found = told.findings.decisions
        assert found is not None
        scores, outcomes = [one["score"] for one in found], [one["outcome"] for one in found]
        asked = Asked(model, model.versions[version], sent, scores, outcomes)
        codes = in_clear(explanations(world).explain([asked])[0])["codes"]
        assert 1 <= len(codes[0]) <= 4
        assert codes[2] == []
        header = ";".join(",".join(row) for row in codes).encode()
        assert reply.all(b"x-headworks-reasons") == [header]
        assert told.header["reasons"]["codes"] == codes

    world.run(story())


def test_without_a_plan_the_answer_says_so(world: World) -> None:
    """Before the analyst has made it: 200, no reasons, `preparing`; it comes without a reload."""

    async def story() -> None:
        shutil.rmtree(world.state / "plans", ignore_errors=True)
        await world.serve(text("inline: true, reasons: 2"))
        reply = await world.ask(denied())
        assert (reply.status, reply.get(b"x-headworks-not-explained")) == (200, b"preparing")
        assert reply.get(b"x-headworks-reasons") is None
        assert (await world.record_of(reply)).header["reasons"] == {"why": "preparing"}
        plan(world)
        await reasoned(world)
        reply = await world.ask(denied())
        assert len((reply.get(b"x-headworks-reasons") or b"").split(b",")) == 2

    world.run(story())


def test_outputs_by_name_and_as_bytes(world: World) -> None:
    """The score as bytes has the same reasons; without the score there is no outcome to explain."""

    async def story() -> None:
        await world.serve(text())
        plan(world)
        await reasoned(world)
        asked = orjson.loads(denied())
        in_json = await world.ask(orjson.dumps(asked))
        asked["outputs"] = [{"name": "score", "parameters": {"binary_data": True}}]
        in_bytes = await world.ask(orjson.dumps(asked))
        assert in_bytes.get(b"x-headworks-reasons") == in_json.get(b"x-headworks-reasons")
        assert in_json.get(b"x-headworks-reasons")

    world.run(story())


def test_too_many_rows_or_too_long_a_header(world: World) -> None:
    """Over `rows_at_most`, or where the header would pass 4 KiB, the answer goes without."""

    async def story() -> None:
        await world.serve(text("inline: true, rows_at_most: 100"))
        plan(world)
        await reasoned(world)
        for rows, why in ((101, b"batch_limit"), (100, b"too_long")):
            reply = await world.ask(denied(rows))
            assert (reply.status, reply.get(b"x-headworks-not-explained")) == (200, why)

    world.run(story())


def test_a_damaged_plan_fails_no_answer(world: World) -> None:
    """Bytes that are no plan: answered as ever, without reasons."""

    async def story() -> None:
        await world.serve(text("inline: true, reasons: 1"))
        live = world.worker.handler.live
        assert live is not None
        plan(world)
        (path,) = (world.state / "plans").glob(f"{live.table.models['mortgage'].stable.artifact}.*")
        path.write_bytes(b"no plan")
        await world.serve(text("inline: true, reasons: 3"))
        reply = await world.ask(denied())
        path.unlink()
        assert (reply.status, reply.get(b"x-headworks-not-explained")) == (200, b"no_plan")

    world.run(story())


def test_a_card_without_a_code_is_refused(tmp_path: Any) -> None:
    """`explain.inline` and a feature without a reviewed reason: the check finds it, at its key."""
    folder = tmp_path / "v1"
    shutil.copytree(MODELS / "v1", folder)
    card = (folder / "card.yaml").read_text().replace("    code: PUBLIC-RECORD\n", "", 1)
    before, reason, after = card.partition("  reason:\n    text: Public record")
    card = before + after.partition("\n")[2]
    (folder / "card.yaml").write_text(card)
    file = tmp_path / "headworks.yaml"
    file.write_text(text().replace(f"{MODELS}/v1", str(folder)))
    (problem,) = check(file).problems
    assert reason
    assert "the card of v1 has no `reason` for 'pbcr'" in str(problem)
