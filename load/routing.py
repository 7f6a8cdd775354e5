"""What rules and a rollout cost the data path: CPU of a request's match, choice and draws.

    python -m load.routing [--requests 200000]

The demo's table: its `held-out` rule (a header) and `everyone`, plain with a canary of 5 %, or
under a rollout at 5 % with its control slice, a holdout of 1 %, all traffic in shadow and 2 % asked
twice. Each figure is the median of five turns, in processor time of one thread.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import orjson

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.exchange import Context, exchange_id
from gateway.revision.revisions import set_rollout
from gateway.routing.choice import asked_again, choose, shadows
from gateway.routing.place import match
from gateway.split import Rollout
from gateway.table import Model, compile_table, make_document

CONFIG = Path(__file__).parents[1] / "headworks.yaml"
UNDER = Rollout("v2", 1, "v1", "v2", 50_000, 10_000, 1_000_000, 20_000)
TURNS = 5


def models() -> dict[str, Model]:
    """The model `mortgage` without a rollout, and under one."""
    with tempfile.TemporaryDirectory() as folder:
        document = make_document(
            check(CONFIG), Artifacts(Path(folder)), author="load", reason="load", now_ns=0
        )
        plain = compile_table(orjson.dumps(document)).models["mortgage"]
        (rule,) = [each for each in document["models"]["mortgage"]["rules"]
                   if each["name"] == "everyone"]  # fmt: skip
        rule["split"] = [["v1", None], ["v2", 0]]
        set_rollout(document, "mortgage", "everyone", UNDER)
        return {"plain": plain, "rollout": compile_table(orjson.dumps(document)).models["mortgage"]}


def microseconds(model: Model, requests: int) -> float:
    asked = [
        SimpleNamespace(method="POST", path="/v2/models/mortgage/infer", caller=None,
                        context=Context(), first={b"x-applicant": b"ann-%d" % number})
        for number in range(1000)
    ]  # fmt: skip
    identity = exchange_id(0)
    noise = UNDER.noise_ppm if model.rules[-1].rollout is not None else 0
    begun = time.process_time()
    for number in range(requests):
        request = asked[number % 1000]
        rule = match(model, request)
        choice = choose(model, rule, request.first, identity)
        shadows(rule, choice.version, identity, request)
        asked_again(rule, noise, identity)
    return (time.process_time() - begun) / requests * 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--requests", type=int, default=200_000, help="of each turn")
    requests = arguments.parse_args().requests
    found = models()
    taken = {name: [] for name in found}
    for _ in range(TURNS):
        for name, model in found.items():
            taken[name].append(microseconds(model, requests))
    plain, under = (statistics.median(taken[name]) for name in ("plain", "rollout"))
    print(f"match, choice and draws of a request: {plain:.2f} µs of CPU")
    print(f"the same under a rollout: {under:.2f} µs; a rollout costs {under - plain:.2f} µs")


if __name__ == "__main__":
    main()
