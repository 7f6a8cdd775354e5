"""What `headworks rollout` and `headworks feedback` say of files that cannot be read."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import cli

CONFIG = str(Path(__file__).parents[2] / "headworks.yaml")


@pytest.mark.parametrize("words", [["rollout", "start"], ["rollout", "simulate", "trees"],
                                   ["feedback", "--config", CONFIG]])  # fmt: skip
def test_a_file_that_is_not_there_is_named(words, tmp_path):
    """In words, with its name and the exit code of a wrong command; a folder is no file."""
    for name, said in (("nowhere.jsonl", "there is no such file"),
                       (str(tmp_path), "it cannot be read: Is a directory")):  # fmt: skip
        done = CliRunner().invoke(cli, [*words, name])
        assert (done.exit_code, done.stderr) == (2, f"headworks: {name}: {said}\n")
