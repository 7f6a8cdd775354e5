"""Saturation by wrk, where it is installed: one fixed request, figures as JSON.

wrk's own percentiles end at 99, so a Lua `done` prints what it holds; everything here is pure but
for the two files it writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from load.figures import Latency
from load.scenario import Scenario

MARK = "FIGURES "
SCRIPT = """wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{mark}{{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"p999":%d,' ..
    '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9), errors.connect, errors.read, errors.write, errors.status,
    errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    requests: int
    errors: int
    seconds: float
    latency: Latency
    sample: str


def write_script(folder: Path, scenario: Scenario, headers: Mapping[str, str]) -> Path:
    """The Lua file that asks the scenario's request; its body lies beside it."""
    body = folder / f"{scenario.name}.body"
    body.write_bytes(scenario.body)
    named = {"content-type": scenario.content_type, **dict(scenario.headers), **headers}
    lines = "\n".join(f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in named.items())
    script = folder / f"{scenario.name}.lua"
    script.write_text(SCRIPT.format(body=body, headers=lines, mark=MARK))
    return script


def parse(text: str) -> Outcome:
    """What wrk printed. ValueError where our line is missing: wrk did not come to its end."""
    line = next((line for line in text.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise ValueError(f"wrk printed no figures: {text.strip()[-300:]!r}")
    told = json.loads(line[len(MARK) :])
    kinds = ("connect", "read", "write", "status", "timeout")
    errors = {kind: told[kind] for kind in kinds if told[kind]}
    return Outcome(
        told["requests"] - told["status"],
        sum(errors.values()),
        told["microseconds"] / 1e6,
        Latency(float(told["p50"]), float(told["p99"]), float(told["p999"])),
        ", ".join(f"{count} {kind}" for kind, count in errors.items()),
    )
