"""The house style, as far as a program can see it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
CODE = SOURCES + sorted((ROOT / "models").rglob("*.py")) + sorted((ROOT / "load").rglob("*.py"))
BANNED = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc", "base"}
LINES_A_FILE = 500
ALONE = {"verify_evidence.py": 620}
"""One file by contract: it goes into bundles and runs without the rest."""
LINES_A_FUNCTION = 70


def functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node) -> int:
    """Lines without the docstring."""
    first = node.body[0]
    skipped = 0
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        skipped = (first.end_lineno or 0) - first.lineno + 1
    return (node.end_lineno or 0) - node.lineno + 1 - skipped


def test_functions_fit_a_screen():
    """No function is longer than 70 lines."""
    long = [f"{path}:{node.lineno} {node.name}" for path in CODE for node in functions(path)
            if length(node) > LINES_A_FUNCTION]  # fmt: skip
    assert [] == long


def test_files_stay_readable():
    """No file is longer than 500 lines."""
    assert [] == [
        str(path)
        for path in CODE
        if len(path.read_text().splitlines()) > ALONE.get(path.name, LINES_A_FILE)
    ]


def test_files_are_nouns():
    """No file or folder is named after nothing."""
    assert [] == [str(path) for path in CODE if {path.stem, path.parent.name} & BANNED]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_says_what_it_is(path):
    """Each module opens with a docstring; empty package files need none."""
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree)


def test_test_files_have_names_of_their_own():
    """pytest imports tests by the name of their file: two of one name stop the whole run."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]

    assert [] == sorted({name for name in names if names.count(name) > 1})


def test_nothing_is_left_for_later():
    """No leftover marks of unfinished work."""
    marks = ("TO" + "DO", "FIX" + "ME", "X" * 3)
    assert [] == [str(path) for path in CODE if any(mark in path.read_text() for mark in marks)]


def test_tests_say_their_truth():
    """Each test has a sentence that says what is expected."""
    silent = [
        f"{path}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert [] == silent
