"""POST /-/feedback on the real worker: who may, what is taken, and that it is durable first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from world import LOCAL, World, running

from gateway.feedback import BODY_AT_MOST, LABELS_AT_MOST

ID = "01939b1e-7000-7000-8000-000000000001"
LINE = orjson.dumps({"id": ID, "label": 1})
FEEDBACK = b"/-/feedback"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("labels"), LOCAL) as world:
        yield world


def test_what_was_accepted_is_one_durable_record(local: World) -> None:
    """The labels stand in the record's clear header; the body and the key are not in it."""

    async def story() -> None:
        lines = b"\n".join([LINE, orjson.dumps({"id": f"{ID}/3", "label": "deny", "source": "b"})])
        reply = await local.ask(lines, target=FEEDBACK + b"?model=mortgage")
        assert (reply.status, reply.error) == (202, None)
        assert reply.json() == {"id": reply.id, "labels": 2}
        told = next(told for told in local.records() if told.header["id"] == reply.id)
        assert told.header["kind"] == "feedback"
        assert told.header["model"] == "mortgage"
        assert told.header["caller"] == "loans-app"
        (first, second) = told.header["labels"]
        assert first[:3] + first[4:] == [ID, 0, 1, "loans-app"]
        assert second[:3] + second[4:] == [ID, 3, "deny", "b"]

    local.run(story())


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"key": None}, 401, "unauthorised"),
        ({"key": "plain-key"}, 403, "feedback_not_allowed"),
        ({"method": b"GET"}, 405, "method_not_allowed"),
        ({"body": b""}, 400, "bad_feedback"),
        ({"body": b'{"id": "x", "label": 1}'}, 400, "bad_feedback"),
        ({"body": b"\n".join([LINE] * 3 + [b"{"])}, 400, "bad_feedback"),
        ({"target": FEEDBACK + b"?day=1"}, 400, "bad_feedback"),
        ({"target": FEEDBACK + b"?model=other"}, 404, "unknown_model"),
        ({"body": b"\n".join([LINE] * (LABELS_AT_MOST + 1))}, 413, "request_too_large"),
        ({"body": b" " * (BODY_AT_MOST + 1)}, 413, "request_too_large"),
    ],
)
def test_what_is_refused_changes_nothing(
    local: World, more: dict[str, object], status: int, code: str
) -> None:
    """Counted and recorded as a refusal; no label of it is taken."""

    async def story() -> None:
        given = {"target": FEEDBACK, "body": LINE} | more
        reply = await local.ask(**given)  # type: ignore[arg-type]
        assert (reply.status, reply.error) == (status, code)
        told = await local.record_of(reply)
        assert "labels" not in told.header
        assert told.header["error"] == code
        assert local.idle()

    local.run(story())


def test_without_the_journal_nothing_is_accepted(tmp_path: Path) -> None:
    """A label whose record cannot be written is refused with 503."""
    with running(tmp_path) as world:

        async def story() -> None:
            journal = world.worker.journal
            assert journal is not None
            world.worker.handler.journal_full = True
            reply = await world.ask(LINE, target=FEEDBACK)
            assert (reply.status, reply.error) == (503, "journal_full")
            assert not [told for told in world.records() if told.header["kind"] == "feedback"]

        world.run(story())
