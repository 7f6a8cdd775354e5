"""Synthetic applicants look like the people they were fitted to."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

MODELS = Path(__file__).resolve().parents[2] / "models"
PARAMETERS = json.loads((MODELS / "mortgage" / "applicants.json").read_text())
FORM = tuple(PARAMETERS["columns"])
WHOLE = ("ccs", "mcs", "condominium")
ANSWERS = ("pbcr", "dmi", "self", "single")
STRONG = 0.15

specification = importlib.util.spec_from_file_location("applicants", MODELS / "applicants.py")
applicants = importlib.util.module_from_spec(specification)
specification.loader.exec_module(applicants)


def numbers(values) -> np.ndarray:
    return np.array([float(x == "yes") if x in ("yes", "no") else float(x) for x in values])


@pytest.fixture(scope="module")
def survey() -> dict[str, np.ndarray]:
    with (MODELS / "data" / "hmda.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = {name: numbers([row[name] for row in rows]) for name in FORM}
    race = np.array(["black" if row["black"] == "yes" else "other" for row in rows])
    return {**columns, "race": race}


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    made = applicants.draw(PARAMETERS, 20_000, np.random.default_rng(7))
    return {name: np.array(x) if name == "race" else numbers(x) for name, x in made.items()}


def test_shares_of_groups_are_kept(survey, drawn):
    """Black applicants are as frequent as in the survey, within one point."""
    assert np.mean(drawn["race"] == "black") == pytest.approx(
        np.mean(survey["race"] == "black"), abs=0.01
    )


@pytest.mark.parametrize("race", ["black", "other"])
def test_means_of_columns_are_kept(survey, drawn, race):
    """In each group a column's mean differs by less than a tenth of its standard deviation."""
    real, made = survey["race"] == race, drawn["race"] == race
    for name in set(FORM) - {"dmi"}:
        spread = survey[name][real].std()
        difference = drawn[name][made].mean() - survey[name][real].mean()
        assert abs(difference) < spread / 10, name


@pytest.mark.parametrize("race", ["black", "other"])
def test_strong_pairs_keep_sign_and_size(survey, drawn, race):
    """Pairs that correlate by more than 0.15 in the survey do so by nearly as much when drawn."""
    names = [name for name in FORM if name != "dmi"]
    real = np.corrcoef([survey[name][survey["race"] == race] for name in names])
    made = np.corrcoef([drawn[name][drawn["race"] == race] for name in names])
    strong = np.triu(np.abs(real) > STRONG, k=1)
    assert strong.sum() >= 3
    assert (np.sign(real[strong]) == np.sign(made[strong])).all()
    assert np.abs(real[strong] - made[strong]).max() < 0.1


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 60), seed=st.integers(0, 2**32))
def test_a_drawn_form_is_plausible(count, seed):
    """Whole numbers are whole, answers are yes or no, ranges hold, debts cover housing, dmi: no."""
    card = yaml.safe_load((MODELS / "mortgage" / "v1" / "card.yaml").read_text())
    made = applicants.draw(PARAMETERS, count, np.random.default_rng(seed))
    assert [*FORM, "race"] == list(made)
    assert {count} == {len(values) for values in made.values()}
    assert set(made["race"]) <= {"black", "other"}
    assert set(made["dmi"]) <= {"no"}
    assert all(debts >= housing for debts, housing in zip(made["dir"], made["hir"], strict=True))
    for feature in card["features"]:
        values = made[feature["name"]]
        if feature["name"] in ANSWERS:
            assert set(values) <= {"yes", "no"}
            continue
        low, high = feature["range"]
        expected = int if feature["name"] in WHOLE else float
        assert all(type(x) is expected and low <= x <= high for x in values)


def test_numbers_stay_within_what_was_observed(survey, drawn):
    """No drawn value lies outside the survey's own extremes."""
    for name in FORM:
        assert survey[name].min() - 1e-4 <= drawn[name].min()
        assert drawn[name].max() <= survey[name].max() + 1e-4


def test_the_same_seed_draws_the_same_people():
    """A seed names its applicants; another seed names others."""
    first, again, other = (
        applicants.draw(PARAMETERS, 50, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_the_parameters_are_small_and_hold_no_row():
    """Below 200 kB, and per column at most 65 quantiles or one entry per distinct value."""
    assert (MODELS / "mortgage" / "applicants.json").stat().st_size < 200_000
    for group in PARAMETERS["groups"].values():
        assert {"tables", "cholesky", "share", "bend"} == set(group)
        assert all(len(quantiles) <= 65 for quantiles in group["bend"].values())
        for table in group["tables"].values():
            assert len(table.get("quantiles", table.get("values"))) <= 65


def test_drawing_needs_no_scikit_learn():
    """Importing the generator does not import the training libraries."""
    code = "import sys, applicants; print({'sklearn', 'skl2onnx', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=MODELS, capture_output=True, text=True)
    assert "set()\n" == done.stdout
