"""`headworks subject` against a port that answers as the API does: what is sent, said, returned."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import cli

CONFIG = Path(__file__).parents[1] / "headworks.yaml"


@pytest.fixture
def api():
    """A real HTTP server: `answers` by path, `asked` as it came."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            asked.append((self.path, json.loads(self.rfile.read(length) or b"null")))
            status, document = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        do_GET = do_POST

        def log_message(self, *_) -> None:
            """Silence."""

    asked: list = []
    answers: dict = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def run(*arguments: str, said: str | None = None):
        laid = ["-c", str(CONFIG), "--set", f"listen.admin=127.0.0.1:{server.server_port}"]
        return CliRunner().invoke(cli, ["subject", *arguments, *laid], input=said)

    run.asked, run.answers = asked, answers
    yield run
    server.shutdown()
    thread.join()
    server.server_close()


def test_find_reads_the_name_from_standard_input(api):
    """The name goes in the request alone; token and count are printed, 1 if nobody is found."""
    api.answers["/api/v1/subjects/find"] = 200, {"token": 17, "count": 3}
    found = api("find", said="Ann Lee\n")
    assert (0, "token 17: 3 bodies\n") == (found.exit_code, found.stdout)
    assert [("/api/v1/subjects/find", {"subject": "Ann Lee"})] == api.asked
    api.answers["/api/v1/subjects/find"] = 200, {"token": None, "count": 0}
    assert api("find", said="nobody\n").exit_code == 1
    assert [2, 2] == [api("find", said=said).exit_code for said in ("", "x" * 9000)]


def test_erase_by_token_or_decision(api):
    """One of both, with a reason; what was destroyed and which exports are left is printed."""
    path = "/api/v1/subjects/erase"
    told = {"keys": 1, "blobs": 3, "leaf": 9, "exports": ["e1"], "exports_perhaps": ["e0"]}
    api.answers[path] = 200, told
    done = api("erase", "17", "--reason", "asked")
    assert done.exit_code == 0
    for word in ("1 keys, 3 bodies; leaf 9", "held them, for you to erase: e1", "may have", "e0"):
        assert word in done.stdout
    assert told == json.loads(api("erase", "--decision", "d/0", "--reason", "r", "--json").stdout)
    assert (path, {"token": 17, "reason": "asked"}) == api.asked[0]
    assert (path, {"decision": "d/0", "reason": "r"}) == api.asked[1]
    for wrong in (["erase", "--reason", "r"], ["erase", "1", "--decision", "d", "--reason", "r"], ["erase", "1"]):  # fmt: skip # noqa: E501
        assert api(*wrong).exit_code == 2
    assert len(api.asked) == 2


def test_erase_under_hold_is_deferred_and_refusals_are_passed_on(api):
    """Deferred is exit code 1 and says by which hold; a refusal is said in the API's words."""
    path = "/api/v1/subjects/erase"
    api.answers[path] = 202, {"deferred": True, "holds": ["case-1"]}
    held = api("erase", "17", "--reason", "r")
    assert (1, "deferred: held by case-1\n") == (held.exit_code, held.stdout)
    api.answers[path] = 403, {"error": "the role privacy is needed", "code": "forbidden"}
    refused = api("erase", "17", "--reason", "r")
    assert refused.exit_code == 1
    assert "the role privacy is needed" in refused.output


def test_hold_release_and_list(api):
    """A model or decisions are held; a hold is released by its id; both are listed."""
    path = "/api/v1/holds"
    api.answers[path] = 200, {"hold": "h1", "erased": [1]}
    assert "h1" in api("hold", "mortgage", "--reason", "case").stdout
    assert api("hold", "--decision", "a", "--decision", "b", "--reason", "case").exit_code == 0
    assert "1 deferred" in api("release", "h1", "--reason", "over").stdout
    assert [
        {"model": "mortgage", "reason": "case", "action": "hold"},
        {"decisions": ["a", "b"], "reason": "case", "action": "hold"},
        {"hold": "h1", "reason": "over", "action": "release"},
    ] == [document for _, document in api.asked]
    assert api("hold", "--reason", "r").exit_code == 2
    one = {"id": "h1", "model": "mortgage", "exchanges": [], "by": "eve", "reason": "case"}
    api.answers[path] = 200, {"holds": [one], "deferred": [one]}
    listed = api("holds").stdout
    assert "h1  mortgage  by eve: case" in listed
    assert "deferred erasure h1" in listed
