"""What a bias finding is called. It is a sign to look into: nothing that anybody reads (pages, what
commands print, the API, the docs) ever says that a version complies with a law, or does not."""

import io
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_judge import columns, run, window_of

from gateway.console.pages import Pages
from gateway.monitor.outcomes import judge_outcomes
from gateway.monitor.pairs import PairedGroup, PairReport, paired_of
from gateway.monitor.report import plain
from gateway.report import overview

ROOT = Path(__file__).parents[2]
READ = ("gateway/**/*.py", "gateway/**/*.html", "gateway/**/*.js", "docs/**/*.md", "*.md",
        "examples/**/*.yaml", "models/**/*.yaml", "headworks.yaml")  # fmt: skip
VERDICTS = re.compile(
    r"\b(non-?)?compliant\b|\bin(to)? compliance\b|\bcompl(y|ies) with\b|\b(un)?lawful\b"
    r"|\bunbiased\b|\bno bias\b|\bfree of bias\b",
    re.IGNORECASE,
)
STATES = ("insufficient", "ok", "watch", "breach")
SHARES = {"a": (0.6, 800), "b": (0.59, 800), "c": (0.46, 300), "d": (0.3, 500), "e": (0.5, 20)}
"""Favourable share and members of each group of a window."""


@pytest.mark.parametrize("said", ["Compliant", "non-compliant", "It complies with", "unlawful"])
def test_the_words_are_known(said):
    """The search below finds what it looks for."""
    assert VERDICTS.search(f"The version is {said} the four-fifths rule.")


def test_no_source_of_what_people_read_says_it():
    """Code, templates, scripts, docs, examples, cards: over 200 files."""
    paths = [path for pattern in READ for path in ROOT.glob(pattern)]
    assert len(paths) > 200
    said = [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in paths
        for found in VERDICTS.finditer(path.read_text())
    ]
    assert said == []


def with_groups():
    races = [race for race, (_, n) in SHARES.items() for _ in range(n)]
    favoured = np.concatenate([np.arange(n) < share * n for share, n in SHARES.values()])
    values = columns(np.random.default_rng(1), len(races))
    return window_of(values, np.where(favoured, 0.2, 0.9), races)


def document():
    """As `/api/v1/monitor/MODEL` and its performance have it, with every state of a group."""
    reports, _ = run([with_groups(), with_groups()])
    latest = reports[-1].to_json()
    assert {group["value"]: group["state"] for group in latest["bias"][0]["groups"]} == {
        "a": "ok", "b": "ok", "c": "watch", "d": "breach", "e": "insufficient",
    }  # fmt: skip
    counts = ((30, 2, 2, 6), (300, 0, 0, 130), (300, 20, 18, 130), (300, 60, 10, 130))
    pairs = [
        PairedGroup("race", str(place), state, state == "watch", paired_of(counted))
        for place, (state, counted) in enumerate(zip(STATES, counts))
    ]
    pair = PairReport("mortgage", "v2", "v1", 2, 1_795_000_000 * 10**9, 500, tuple(pairs), 0)
    cases = {
        (value, favourable, good): (n, 0.9 * n if good else 0.1 * n)
        for value, of in {"a": (180, 20), "b": (100, 100), "c": (170, 30), "e": (3, 2)}.items()
        for favourable, n in zip((1, 0), of)
        for good in (1, 0)
    }
    outcomes = judge_outcomes("v1", "stable", "race", dict.fromkeys("abce", 600), cases, cases)
    labels = dict.fromkeys(("labels", "decisions", "corrected", "duplicates", "contradicting"), 1)
    return {
        "model": "mortgage", "counts": [], "agreement": [], "pairs": [pair.to_json()],
        "series": [{"version": "v1", "arm": "stable", "windows": 2, "latest": latest}],
        "performance": {"labels": labels, "unmatched": 0, "cohorts": [], "pairs": [],
                        "groups": [plain(asdict(outcomes))]},
    }  # fmt: skip


def printed(told):
    shown = io.StringIO()
    overview.monitor(Console(file=shown, width=300), told)
    return shown.getvalue()


def drawn(told):
    page = Pages(None, None)._page("model.html", 200, told | {"twin": "/api/v1/monitor/mortgage"})
    return bytes(page.body).decode()


@pytest.mark.parametrize("render", [json.dumps, printed, drawn])
def test_every_state_of_a_group_is_told_without_it(render):
    """Each state by its name, in the API's document, what the command prints, and the page."""
    text = render(document())
    assert [state for state in STATES if state in text] == list(STATES)
    assert VERDICTS.search(text) is None


def test_the_command_tells_groups_from_slices_and_labels_that_say_nothing():
    """A slice that is like its past says nothing of how a group is treated; and a cohort whose
    labels are all unusable is not left out in silence."""
    told = document()
    told["series"][0]["latest"]["slices"] = [
        {"key": "race", "value": "d", "state": "ok", "n": 100, "compared": 24}
    ]
    cohort = {"day": "2026-11-27", "version": "v1", "arm": "stable", "realised": None,
              "estimated": None, "unusable": 3}  # fmt: skip
    told["performance"]["cohorts"] = [cohort]
    text = printed(told)
    assert "group race `d`: breach" in text
    assert "group race `e`: insufficient" in text
    assert "slice race `d`: ok, 100 decisions, 24 comparisons with its own past" in text
    assert "3 labels of decisions of 2026-11-27 by v1 (stable) are no labels by its card" in text


def test_a_window_is_told_without_what_could_not_be_judged():
    """A slice has two dozen causes: those without enough data are counted, the others are told."""
    verdicts = {f"slice/race/a/feature/{n}": "not_enough_data" for n in range(24)}
    told = {"id": "m/v1/stable/1", "state": "fault", "counts": {"decisions": 100}, "words": [],
            "opened_at": "", "closed_at": "", "first_decision": "", "last_decision": "",
            "verdicts": verdicts | {"quality/a/stuck": "fault"}}  # fmt: skip
    shown = io.StringIO()
    overview.window(Console(file=shown, width=300), told)
    assert "quality/a/stuck: fault" in shown.getvalue()
    assert "not_enough_data for 24 causes" in shown.getvalue()
    assert "slice/race" not in shown.getvalue()
