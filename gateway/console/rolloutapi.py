"""The description of the governor's API of rollouts."""

from __future__ import annotations

from typing import Any

from gateway.console.schema import (
    FLAG,
    MOMENT,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    WHOLE,
    Schema,
    fields,
    in_path,
    keyed,
    listed,
    may_be_null,
    of,
    operation,
    refer,
    sent,
)

REASON = of("string", "1 to 500 characters, for the ledger.")
ACTS = {
    "approve": "Say yes to what somebody else asked for, or to the step that waits for it.",
    "pause": "Hold it where it is; one person may.",
    "resume": "Go on from a hold; what it was held for is overruled.",
    "abort": "Everybody is on `from` again, at once; one person may.",
    "promote": "Go on to the next step now, or `fully` to 100 %.",
}


def rollout_paths() -> dict[str, Any]:
    name = in_path("name", "Its name.", "mortgage-v2")
    rollout = refer("Rollout")
    acts = {}
    for act, words in ACTS.items():
        body = {} if act == "approve" else {"reason": REASON}
        body |= {"fully": FLAG} if act == "promote" else {}
        acts[f"/api/v1/rollouts/{{name}}/{act}"] = {
            "post": operation(f"{act}_rollout", words, rollout, 400, 403, 404, 409,
                              parameters=[name], requestBody=sent(**body))
        }  # fmt: skip
    return {
        "/api/v1/rollouts": {
            "get": operation("rollouts", "Those that run, and those that are over.",
                             fields(rollouts=listed(refer("RolloutLine")))),
            "post": operation("start_rollout", "Start a rollout from its file.", rollout, 400, 409,
                              413, 422, requestBody=sent(
                                  file=of("string", "The file's text, YAML."),
                                  name=of("string", "The file's name, for what is wrong in it."))),
        },
        "/api/v1/rollouts/{name}": {
            "get": operation("rollout", "One rollout, with its evidence.", rollout, 404,
                             parameters=[name])
        },
        "/api/v1/rollouts/{name}/history": {
            "get": operation("rollout_history", "All that was done with it, from the ledger.",
                             fields(rollout=TEXT, events=listed(of("object"))), 404,
                             parameters=[name])
        },
        **acts,
    }  # fmt: skip


def rollout_schemas() -> dict[str, Schema]:
    line = {
        "rollout": TEXT, "attempt": WHOLE, "model": TEXT, "rule": TEXT, "from": TEXT, "to": TEXT,
        "phase": of("string", enum=[
            "draft", "approved", "shadowing", "running", "held", "baking", "promoted",
            "rolled_back", "aborted"]),
        "step": of("integer", "From 1; 0 before the first."), "steps": WHOLE,
        "exposure": of("string", "Who is exposed to `to`, in words."),
        "weight_ppm": WHOLE, "mode": of("string", enum=["act", "observe"]),
        "why": of("string", "Why it is where it is, in one sentence."),
        "trouble": of(["string", "null"], "Why it cannot be judged, if so."),
    }  # fmt: skip
    step = fields(
        step=WHOLE, what=TEXT, min_s=WHOLE, max_s=of(["integer", "null"]),
        requires=listed(TEXT), state=of("string", enum=["done", "now", "ahead"]),
        how=of(["string", "null"], "How it was left: by the evidence, or by whom."),
    )  # fmt: skip
    whole = line | {
        "author": TEXT, "owner": TEXT, "reason": TEXT, "ticket": TEXT, "digest": TEXT,
        "began": MOMENT, "since": TEXT_OR_NULL, "lasted_s": WHOLE, "plan": listed(step),
        "held": may_be_null(fields(kind=TEXT, why=TEXT, causes=listed(TEXT))),
        "overruled": listed(TEXT),
        "asked": may_be_null(fields(what=TEXT, by=TEXT, why=TEXT)),
        "approvals": listed(fields(by=TEXT, step=WHOLE, at=MOMENT)),
        "evidence": fields(alpha=NUMBER, beta=NUMBER, block_s=NUMBER, blocks=WHOLE, late=WHOLE,
                           units_refused=WHOLE),
        "guards": listed(refer("GuardVerdict")),
        "outlook": listed(fields(guard=TEXT, detectable=NUMBER_OR_NULL, safe_in_s=NUMBER_OR_NULL,
                                 within_s=NUMBER, words=TEXT)),
        "counts": keyed(fields(exchanges=WHOLE, failed=WHOLE, units=WHOLE, bad_units=WHOLE,
                               labels=WHOLE)),
        "pairs": keyed(WHOLE),
        "unhealthy": keyed(TEXT),
        "would": of(["string", "null"], "What it would do, if it did not only observe."),
    }  # fmt: skip
    return {
        "RolloutLine": fields(**line),
        "Rollout": fields(**whole),
        "GuardVerdict": fields(
            guard=TEXT,
            verdict=of("string", enum=["worse", "safe", "undecided"]),
            e_worse=of("number", "Evidence that it is worse; it convinces at need_worse."),
            need_worse=NUMBER,
            e_safe=of("number", "Evidence that it is not; it convinces at need_safe."),
            need_safe=NUMBER,
            log_worse=NUMBER,
            log_safe=NUMBER,
            units=listed(of("integer", "In canary and control, or pairs twice.")),
            on_fail=TEXT,
            missing=TEXT_OR_NULL,
            group=TEXT_OR_NULL,
            difference=NUMBER_OR_NULL,
            interval=may_be_null(listed(NUMBER)),
            words=of("string", "The same in a sentence."),
        ),
    }
