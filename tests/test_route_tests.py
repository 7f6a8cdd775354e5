"""`headworks route test`: what holds, what does not, which rules are reached; for CI."""

from __future__ import annotations

from pathlib import Path

import orjson
from typer.testing import CliRunner

from gateway.cli import cli

CONFIG = """
callers: [{name: loans-app, key_sha256: "%s"}]
models:
  mortgage:
    versions: {v1: {upstream: 'http://a'}, v2: {upstream: 'http://b'}}
    rules:
      - {name: pilot, when: {header: {x-tenant: pilot}}, split: {v2: 100%%}}
      - {name: gold, when: {body: {/tier: gold}}, split: {v2: 100%%}}
      - {name: everyone, split: {v1: 100%%}, shadow: {v2: 100%%}}
""" % ("a" * 64)
TESTS = """
tests:
  - name: pilots get v2
    request: {path: /v2/models/mortgage/infer, headers: {x-tenant: pilot}, caller: loans-app}
    expect: {rule: pilot, version: v2, arm: stable, shadows: []}
  - name: others get v1, and v2 a copy
    request: {path: /v2/models/mortgage/infer, caller: loans-app, body: {tier: tin}}
    expect: {version: v1, shadows: [v2]}
  - name: strangers are refused
    request: {path: /v2/models/mortgage/infer}
    expect: {refused: unauthorised}
"""


def run(folder: Path, tests: str, *more: str):  # type: ignore[no-untyped-def]
    (folder / "headworks.yaml").write_text(CONFIG)
    (folder / "routes_test.yaml").write_text(tests)
    words = [
        "route",
        "test",
        str(folder / "routes_test.yaml"),
        "-c",
        str(folder / "headworks.yaml"),
    ]
    return CliRunner().invoke(cli, [*words, *more])


def test_tests_that_hold_and_the_rules_they_reach(tmp_path: Path) -> None:
    """Exit 0; two of three rules; below the coverage asked for, exit 1."""
    done = run(tmp_path, TESTS, "--json")
    assert done.exit_code == 0, done.output
    assert orjson.loads(done.stdout) == {
        "tests": 3, "failed": [], "coverage": 66.7, "unreached": ["mortgage/gold"],
    }  # fmt: skip
    assert run(tmp_path, TESTS, "--fail-under", "66").exit_code == 0
    assert run(tmp_path, TESTS, "--fail-under", "90").exit_code == 1


def test_a_test_that_fails_says_what_came(tmp_path: Path) -> None:
    """What was expected, what came; a refusal nobody expected is a failure."""
    wrong = TESTS.replace("pilot}, caller: loans-app}", "pilot}}")
    done = run(tmp_path, wrong)
    assert done.exit_code == 1
    assert "failed: pilots get v2: rule 'pilot' was expected, None came" in done.output
    assert "it was refused: a caller is wanted; known: loans-app" in done.output


def test_a_file_of_tests_that_is_wrong_says_where(tmp_path: Path) -> None:
    """Line and key, as for the configuration."""
    done = run(tmp_path, TESTS.replace("refused:", "refuse:"))
    assert done.exit_code == 1
    assert (
        "routes_test.yaml:11: tests.2.expect.refuse: unknown key; refused is meant?" in done.output
    )


def test_check_warns_of_odd_rules_and_refuses_none(tmp_path: Path) -> None:
    """With line and rule, exit code 0; the schema takes a share alone for a shadow."""
    text = CONFIG.replace(
        "{name: everyone,", "{name: all, split: {v1: 100%}}\n      - {name: everyone,"
    )
    (tmp_path / "headworks.yaml").write_text(text)
    done = CliRunner().invoke(cli, ["check", "-c", str(tmp_path / "headworks.yaml")])
    assert done.exit_code == 0, done.output
    where = "headworks.yaml:10: models.mortgage.rules.3: rule 'everyone'"
    assert f"{where} is never reached: all it matches falls to 'all' before it" in done.output
    assert "overlaps with 'pilot', which wins" not in done.output
    schema = orjson.loads(CliRunner().invoke(cli, ["check", "--schema"]).stdout)
    (shadow,) = schema["$defs"]["RuleSettings"]["properties"]["shadow"][
        "patternProperties"
    ].values()
    assert {"string", None} == {one.get("type") for one in shadow["anyOf"]}
