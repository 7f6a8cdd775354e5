"""The pages under `examples/` are right: each configuration is one that `headworks check` takes."""

from pathlib import Path

import pytest

from gateway.check import check

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*/headworks.yaml"))
PREFIX = "models:\n"
VERSION = "versions: {v1: {upstream: 'http://h:1'}}, rules: [{name: a, split: {v1: }}]"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_is_right_and_has_its_page(path: Path) -> None:
    """Nothing to complain of, and a page that names the file."""
    assert [] == [str(problem) for problem in check(path).problems]
    assert f"examples/{path.parent.name}/headworks.yaml" in (path.parent / "README.md").read_text()


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (["protocol: mlflow", "protocol: mlflow"], "has no model name in its paths"),
        (["protocol: v1", "protocol: openai"], "both serve /v1/models"),
        (["protocol: v2", "protocol: raw, path: /a, mapping: {predict: /p}"], ""),
        (["protocol: mlflow, path: /a", "protocol: mlflow, path: /b"], ""),
        (["protocol: v1, path: /a", "protocol: raw, path: /a, mapping: {predict: /p}"],
         "takes every path"),
        (["protocol: raw, path: /a"], "needs `predict`"),
        (["protocol: raw, mapping: {predict: /p}"], "needs a `path` or `host`"),
        (["protocol: v2, mapping: {rows: /a}"], "read for raw models only"),
        (["protocol: v2, names: [x]"], "read for openai models only"),
        (["protocol: soap"], "'v2', 'v1', 'openai', 'mlflow' or 'raw'"),
        (["protocol: raw, path: a, mapping: {predict: /p}"], "should match pattern"),
    ],
)  # fmt: skip
def test_models_that_could_not_be_told_apart_are_refused(
    tmp_path: Path, models: list[str], words: str
) -> None:
    """`check` says which two, and what to do."""
    text = "".join(f"  m{n}: {{{model}, {VERSION}}}\n" for n, model in enumerate(models))
    (tmp_path / "headworks.yaml").write_text(PREFIX + text)
    problems = check(tmp_path / "headworks.yaml").problems
    assert bool(problems) == bool(words)
    assert words in "\n".join(map(str, problems))
