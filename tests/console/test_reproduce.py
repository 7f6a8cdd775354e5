"""A recorded decision made again by a running gateway."""

import httpx2
import orjson
from gateway_process import body
from test_openapi import DOCUMENT, faults

from gateway.ledger.log import LedgerReader


def reproduce(world, identity):
    path = f"{world.address}/api/v1/decisions/{identity}/reproduce"
    return httpx2.post(path, timeout=60)


def test_answer_and_explanation_are_made_again_to_the_bit(world):
    """The same artifact on the same input: equal in both, under the runtime that answered; a leaf
    says that a machine read the body, and names the decision."""
    answer = reproduce(world, world.denied)
    told = answer.json()
    assert (told["answer"]["result"], told["answer"]["where"]) == ("equal", [])
    assert (told["explanation"]["result"], told["explanation"]["where"]) == ("equal", [])
    assert told["answer"]["runtime"]["recorded"] == told["answer"]["runtime"]["here"]
    state = world.gateway.folder / "state"
    ((_, leaf),) = LedgerReader(state, told["reading"]).read(1)
    record = orjson.loads(leaf)["record"]
    assert (record["job"], record["decision"]) == ("reproduce", world.denied)
    (post,) = DOCUMENT["paths"]["/api/v1/decisions/{id}/reproduce"].values()
    schema = post["responses"]["200"]["content"]["application/json"]["schema"]
    assert faults(schema, told) == []


def test_a_shadow_and_a_batch_are_made_again(world):
    """A shadow's answer by its own artifact; many rows as the one batch they were."""
    (shadow,) = world.get(f"/api/v1/decisions/{world.denied}").json()["shadows"]
    rows = orjson.loads(body())
    for tensor in rows["inputs"]:
        tensor["shape"], tensor["data"] = [7, 1], tensor["data"] * 7
    lvr = next(tensor for tensor in rows["inputs"] if tensor["name"] == "lvr")
    lvr["data"] = [0.2, 0.5, 0.77, 0.9, 1.1, 1.4, 1.7]
    batch = world.send(orjson.dumps(rows), x_applicant="batch")
    world.gateway.wait_settled()
    for identity, count in ((shadow["id"], 1), (batch, 7)):
        told = reproduce(world, identity).json()
        assert (told["answer"]["result"], told["answer"]["rows"]) == ("equal", count)
        assert told["explanation"]["result"] == "equal"


def test_what_cannot_be_made_again_says_why(world):
    """A refused request has no decision; an unknown id is unknown, a wrong one is refused."""
    told = reproduce(world, world.refused).json()
    assert told["answer"]["result"] == told["explanation"]["result"] == "cannot"
    assert "no decision" in told["answer"]["why"]
    assert reproduce(world, "00000000-0000-7000-8000-000000000000").status_code == 404
    assert reproduce(world, "x").status_code == 400


def test_without_its_artifact_both_say_so(world):
    """A digest that nobody holds any more: why, in words, of the answer and of its explanation."""
    shadow = world.gateway.api(f"/api/v1/decisions/{world.denied}")["shadows"][0]["id"]
    record = world.gateway.api(f"/api/v1/decisions/{shadow}")["record"]
    folder = world.gateway.folder / "state" / "artifacts" / record["artifact"]
    away = folder.rename(folder.with_suffix(".away"))
    try:
        told = reproduce(world, shadow).json()
    finally:
        away.rename(folder)
    assert told["answer"]["result"] == told["explanation"]["result"] == "cannot"
    assert "no longer held" in told["answer"]["why"]
    assert told["explanation"]["why"] == told["answer"]["why"]


def test_the_command_prints_it(world):
    """`headworks reproduce`: exit code 0 where nothing differs, 1 where it cannot be told."""
    fine = world.gateway.run("reproduce", world.denied)
    assert fine.returncode == 0, fine.stderr
    assert "answer: equal, bit for bit" in fine.stdout
    assert world.gateway.run("reproduce", world.refused).returncode == 1
