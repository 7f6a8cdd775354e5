"""Makes tests/formats/verdicts-2.json: python tests/rollout/vectors.py

A frozen vector is made once for each format of blocks and verdicts, never to make a test pass.
"""

from __future__ import annotations

from pathlib import Path

import orjson
from test_guard import EVERY
from traffic import blocks

from gateway.rollout.guard import Plan, judge
from gateway.rollout.guardsettings import JudgeSettings

OUT = Path(__file__).parents[1] / "formats" / "verdicts-2.json"
SETTINGS = {"guards": EVERY, "evidence": {"warmup": "20s", "min_requests": 50}}


def main() -> None:
    plan, state, logs = Plan(JudgeSettings.model_validate(SETTINGS)), None, []
    told = blocks(2026, 24, {"bad": 0.08, "slower": 1.2, "favourable": (0.6, 0.4), "shift": 0.05},
                  {"bad": 0.02}, {"disagree": 0.06, "noise": (0.05, 0.01)})  # fmt: skip
    for block in told:
        state, judgement = judge(plan, state, block)
        logs.append([[one.log_worse, one.log_safe] for one in judgement.verdicts])
    words = {one.guard: one.word for one in judgement.verdicts}
    whole = {"settings": SETTINGS, "blocks": [one.to_json() for one in told], "log_e": logs,
             "words": words}  # fmt: skip
    OUT.write_bytes(orjson.dumps(whole))


if __name__ == "__main__":
    main()
