"""The committed models are what their cards say, and the cards are what the gateway reads."""

import csv
import hashlib
import re
import subprocess
import sys
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from gateway.card import Card

MODELS = Path(__file__).resolve().parents[2] / "models"
MADE = MODELS / "mortgage"
VERSIONS = ("v1", "v2", "v3")
NUMBERS = ("dir", "hir", "lvr", "ccs", "mcs", "uria", "condominium")
ANSWERS = ("pbcr", "dmi", "self", "single")
FORM = NUMBERS + ANSWERS


def card(version: str) -> Card:
    return Card.model_validate(yaml.safe_load((MADE / version / "card.yaml").read_text()))


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def score(version: str, rows: list[dict], **fixed: str) -> np.ndarray:
    """Scores of rows as they are, except for columns that are `fixed`."""
    rows = [{**row, **fixed} for row in rows]
    feed = {
        name: np.array(
            [[row[name]] for row in rows], dtype=np.float32 if name in NUMBERS else object
        )
        for name in FORM
    }
    session = onnxruntime.InferenceSession(MADE / version / "model.onnx")
    (scores,) = session.run(["score"], feed)
    assert (len(rows), 1) == scores.shape
    assert np.float32 == scores.dtype
    return scores[:, 0].astype(np.float64)


@pytest.fixture(scope="module")
def people() -> list[dict[str, str]]:
    return rows_of(MADE / "held_out.csv")


def approval_gap(people: list[dict[str, str]], scores: np.ndarray, threshold: float) -> float:
    black = np.array([person["race"] == "black" for person in people])
    return float(np.mean(scores[~black] < threshold) - np.mean(scores[black] < threshold))


def assert_figures(figures: dict, denied: np.ndarray, scores: np.ndarray, threshold: float) -> None:
    decided = scores >= threshold
    expected = {
        "n": len(denied),
        "auc": roc_auc_score(denied, scores),
        "log_loss": log_loss(denied, scores),
        "brier": brier_score_loss(denied, scores),
        "accuracy": np.mean(decided == denied),
        "denial_rate": np.mean(decided),
        "approval_rate": 1 - np.mean(decided),
        "denials_caught": np.mean(decided[denied]),
    }
    assert figures == pytest.approx(expected, abs=1e-4)


def assert_measured(
    metrics: dict, people: list[dict[str, str]], scores: np.ndarray, threshold: float
) -> None:
    denied = np.array([person["deny"] == "yes" for person in people])
    assert_figures(metrics["overall"], denied, scores, threshold)
    for race in ("black", "other"):
        member = np.array([person["race"] == race for person in people])
        figures = metrics["by_group"][f"race={race}"]
        assert_figures(figures, denied[member], scores[member], threshold)
    assert metrics["approval_gap"] == pytest.approx(
        approval_gap(people, scores, threshold), abs=1e-4
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_card_belongs_to_the_files_beside_it(version):
    """Card, model and training data name each other by version and digest."""
    read = card(version)
    model = (MADE / version / read.artifact.file).read_bytes()
    data = read.training.data
    assert ("mortgage", version) == (read.model, read.version)
    assert read.artifact.sha256 == hashlib.sha256(model).hexdigest()
    named = MODELS.parent / data["file"]
    assert data["sha256"] == hashlib.sha256(named.read_bytes()).hexdigest()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_graph_takes_the_whole_form_and_gives_one_score(version):
    """Inputs are the eleven columns in the form's order, FP32 or string; the output is `score`."""
    graph = onnx.load(MADE / version / "model.onnx").graph
    kinds = dict.fromkeys(NUMBERS, onnx.TensorProto.FLOAT)
    kinds.update(dict.fromkeys(ANSWERS, onnx.TensorProto.STRING))
    assert list(kinds.items()) == [(x.name, x.type.tensor_type.elem_type) for x in graph.input]
    assert ["score"] == [output.name for output in graph.output]
    assert list(FORM) == [feature.name for feature in card(version).features]


@pytest.mark.parametrize("version", VERSIONS)
def test_race_is_no_input(version):
    """Neither the graph nor the card knows of race, nor does any version read marital status."""
    graph = onnx.load(MADE / version / "model.onnx").graph
    names = {x.name for x in graph.input} | {feature.name for feature in card(version).features}
    assert set() == names & {"race", "black"}
    assert "single" not in {feature.name for feature in card(version).used}


@pytest.mark.parametrize("version", VERSIONS)
def test_used_means_that_the_score_can_change(version, people):
    """Over the held-out people each used column moves some score, and an unused one moves none."""
    plain = score(version, people)
    for feature in card(version).features:
        extremes = feature.categories or feature.range
        moved = any(
            not np.array_equal(plain, score(version, people, **{feature.name: value}))
            for value in extremes
        )
        assert feature.used == moved, feature.name


@pytest.mark.parametrize("version", VERSIONS)
def test_every_used_feature_has_its_own_reason(version):
    """A reason is there for each column that is read, none for others, no code or text twice."""
    features = card(version).features
    assert [f.used for f in features] == [f.reason is not None for f in features]
    assert len(card(version).used) == len({f.reason.code for f in card(version).used})
    assert len(card(version).used) == len({f.reason.text for f in card(version).used})


def test_real_people_fit_the_cards_ranges():
    """Every value of the survey, also as FP32, lies in the range or the categories of its card."""
    people = rows_of(MODELS / "data" / "hmda.csv")
    for feature in card("v1").features:
        values = [person[feature.name] for person in people]
        if feature.categories:
            assert set(values) <= set(feature.categories)
        else:
            low, high = feature.range
            assert all(low <= float(np.float32(value)) <= high for value in values), feature.name


@pytest.mark.parametrize("version", VERSIONS)
def test_metrics_are_what_the_runtime_gives(version, people):
    """The card's held-out figures are recomputed from model.onnx and held_out.csv."""
    read = card(version)
    threshold = read.outputs.outcome.threshold
    assert_measured(read.metrics["held_out"], people, score(version, people), threshold)
    live = read.metrics.get("held_out_live")
    assert (live is not None) == read.feature("dmi").used
    if live is not None:
        assert_measured(live, people, score(version, people, dmi="no"), threshold)


def test_v2_is_better_than_v1():
    """On held-out people v2 ranks better and its probabilities are better."""
    v1, v2 = (card(version).metrics["held_out"]["overall"] for version in ("v1", "v2"))
    assert v2["auc"] > v1["auc"] + 0.01
    assert v2["log_loss"] < v1["log_loss"] - 0.01


def test_v3_looks_best_on_file_and_harms_when_live(people):
    """With dmi as recorded v3 has the best AUC; live its gap is ten points wider than any other."""
    cards = {version: card(version) for version in VERSIONS}
    recorded = {v: cards[v].metrics["held_out"]["overall"]["auc"] for v in VERSIONS}
    assert "v3" == max(recorded, key=recorded.get)
    gaps = {
        v: approval_gap(people, score(v, people, dmi="no"), cards[v].outputs.outcome.threshold)
        for v in VERSIONS
    }
    assert gaps["v3"] >= max(gaps["v1"], gaps["v2"]) + 0.10
    assert cards["v3"].metrics["held_out_live"]["overall"]["auc"] < recorded["v2"]


def test_held_out_people_are_real_and_in_no_other_file(people):
    """held_out.csv repeats rows of hmda.csv; they and the reference make up the whole survey."""
    survey = rows_of(MODELS / "data" / "hmda.csv")
    rows = [int(person["row"]) for person in people]
    assert sorted(set(rows)) == rows
    for person in people:
        source = survey[int(person["row"]) - 1]
        assert all(person[name] == source[name] for name in (*ANSWERS, "deny"))
        assert all(float(person[x]) == pytest.approx(float(source[x]), abs=1e-6) for x in NUMBERS)
        assert (person["race"] == "black") == (source["black"] == "yes")
    rest = [source for number, source in enumerate(survey, start=1) if number not in set(rows)]
    reference = pq.read_table(MADE / "reference.parquet")
    assert [row["lvr"] for row in reference.to_pylist()] == pytest.approx(
        [float(source["lvr"]) for source in rest], abs=1e-6
    )


def test_reference_holds_forms_and_scores_only():
    """Reference rows have the form's types and each version's score, neither race nor label."""
    reference = pq.read_table(MADE / "reference.parquet")
    kinds = {name: str(reference.schema.field(name).type) for name in reference.schema.names}
    expected = dict.fromkeys(NUMBERS, "double") | dict.fromkeys(ANSWERS, "string")
    expected |= dict.fromkeys(("ccs", "mcs", "condominium"), "int64")
    assert expected | {f"score_{version}": "double" for version in VERSIONS} == kinds
    rows = reference.to_pylist()
    for version in VERSIONS:
        assert score(version, rows) == pytest.approx(
            reference[f"score_{version}"].to_pylist(), abs=2e-6
        )


def test_background_is_a_part_of_the_reference():
    """The 400 background rows are rows of the reference."""
    background = pq.read_table(MADE / "background.parquet")
    reference = pq.read_table(MADE / "reference.parquet").select(FORM)
    assert list(FORM) == background.schema.names
    known = {tuple(row.values()) for row in reference.to_pylist()}
    assert 400 == sum(tuple(row.values()) in known for row in background.to_pylist())


def test_the_readme_gives_the_figures_of_the_cards():
    """The README's table has AUC, log loss, denial rate and gap as the cards have them."""
    text = (MODELS / "README.md").read_text()
    for version in VERSIONS:
        metrics = card(version).metrics
        figures = metrics.get("held_out_live", metrics["held_out"])
        (line,) = re.findall(rf"^\| {version} \|[^|]*\|(.*)\|$", text, re.MULTILINE)
        told = [float(re.search(r"[\d.]+", cell).group()) for cell in line.split("|")]
        overall = figures["overall"]
        percent = [100 * overall["denial_rate"], 100 * figures["approval_gap"]]
        assert told[:2] == pytest.approx([overall["auc"], overall["log_loss"]], abs=6e-4)
        assert told[2:] == pytest.approx(percent, abs=0.06)


@pytest.mark.long
def test_training_again_gives_the_same_bytes():
    """`train.py --check` finds nothing when the libraries are those that the cards name."""
    libraries = card("v1").training.configuration["libraries"]
    if libraries != {name: installed(name) for name in libraries}:
        pytest.skip("other versions of the libraries are installed than made the committed files")
    command = [sys.executable, MODELS / "train.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stdout)
