"""What is promised in words is there: pages made from code, commands and files that are named."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from gateway import cli, reference
from gateway.check import check
from gateway.errors import CODES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", reference.pages())
def test_pages_made_from_code_are_up_to_date(name):
    """`scripts/docs` would change nothing."""
    assert reference.pages()[name] == (ROOT / "docs" / name).read_text()


def test_every_setting_has_a_sentence():
    """No setting is declared without saying what it does."""
    assert [] == [
        key for key, field, _ in reference.fields(cli_settings()) if not field.description
    ]


def cli_settings():
    from gateway.settings import Settings

    return Settings


def test_every_code_that_is_raised_is_documented():
    """Each Refusal in the sources has its place in the one table of codes."""
    sources = "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    raised = set(re.findall(r'Refusal\(\s*"([a-z_]+)"', sources))
    raised |= set(re.findall(r'(?:account\.error = |refuse\()"([a-z_]+)"', sources))
    assert raised - {"bad_parameter", "unknown_decision"} <= CODES.keys()
    assert len(raised) > 15


def test_commands_in_the_readme_exist():
    """Each `headworks X` and `scripts/X` that a page names can be run."""
    known = set(get_command(cli.cli).commands)
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text()
        named = set(re.findall(r"(?:\.venv/bin/|`)headworks ([a-z]+)\b(?! v\d)", text))
        assert named <= known, page
        for script in re.findall(r"scripts/([a-z]+)", text):
            assert (ROOT / "scripts" / script).exists(), f"{page}: {script}"


def test_tests_that_the_pages_name_exist():
    """Where a page says which test shows a promise, that test is there."""
    count = 0
    for page in (ROOT / "docs").glob("*.md"):
        for file, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text()):
            count += 1
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.M), name
    assert count > 50


def test_files_that_the_pages_name_exist():
    """Paths in backticks that look like files of the repo are files of the repo."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(
            r"`((?:gateway|docs|models|tests|examples)/[\w/.-]+)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_demo_configuration_is_right():
    """headworks.yaml at the top has no problem."""
    assert [] == check(ROOT / "headworks.yaml").problems


def test_the_readme_s_curl_sends_a_body_that_is_there():
    """The first request's file exists and is an inference request."""
    words = shlex.split(README.split("curl -i", 1)[1].split("```", 1)[0].replace("\\\n", " "))
    body = next(word for word in words if word.startswith("@"))
    assert "inputs" in yaml.safe_load((ROOT / body[1:]).read_text())


def test_environment_names_are_unique_and_cover_the_ports():
    """HEADWORKS_LISTEN_DATA lays over listen.data."""
    names = reference.environment_names()
    assert names["HEADWORKS_LISTEN_DATA"] == "listen.data"
    assert len(set(names.values())) == len(names)
