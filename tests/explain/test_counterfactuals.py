"""What would have changed an adverse outcome: allowed, answered by the model, and least."""

import csv
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import card_of, category, number
from pydantic import ValidationError

from gateway.card import Card, Feature
from gateway.explain.counterfactuals import counterfactuals, paths
from gateway.explain.explainer import Explainer
from gateway.explain.worker import (
    Asked,
    as_columns,
    describe_change,
    read_parquet,
    tell_counterfactuals,
)

MORTGAGE = Path(__file__).parents[2] / "models" / "mortgage"
DENY = {"below": "approve", "at_or_above": "deny", "adverse": "deny", "threshold": 0.5}


def can(direction, low=0, high=10, step=0.25):
    return {"actionable": True, "range": (0, 10),
            "change": {"direction": direction, "range": (low, high), "step": step}}  # fmt: skip


def card_with(*features):
    return card_of(b"", list(features), outcome=DENY)


THREE = card_with(
    number("debt", **can("decrease", 1, 10)),
    number("income", **can("increase", 0, 8)),
    number("age", range=(0, 10)),
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_whatever_the_model_changes_are_allowed_passing_and_least(seed):
    """Any model, monotone or not: only what is actionable moves, in its direction, range and step;
    the model says so; and a step less of the one feature leaves the outcome adverse."""
    dice = np.random.default_rng(seed)
    table = dice.random((11, 11, 11))
    row = dict(zip(("debt", "income", "age"), dice.uniform(0, 10, 3).tolist()))

    def score(columns):
        places = [np.floor(columns[name]).astype(int) for name in ("debt", "income", "age")]
        return table[tuple(places)]

    if score({name: np.array([value]) for name, value in row.items()})[0] < 0.5:
        assert counterfactuals(THREE, row, score) == ((), "the artifact does not give this outcome")
        return
    found, why = counterfactuals(THREE, row, score)
    assert bool(found) == (why is None)
    for one in found:
        assert 1 <= len(one.changes) <= 2
        changed = row | one.changes
        assert score({name: np.array([value]) for name, value in changed.items()})[0] < 0.5
        for name, value in one.changes.items():
            low, high, sign = {"debt": (1, 10, -1), "income": (0, 8, 1)}[name]
            assert low <= value <= high
            assert sign * (value - row[name]) > 0
            assert value / 0.25 == round(value / 0.25)
        if len(one.changes) == 1:
            ((name, value),) = one.changes.items()
            less = value + (0.25 if name == "debt" else -0.25)
            nearer = {key: np.array([less if key == name else x]) for key, x in row.items()}
            beyond = less >= row[name] if name == "debt" else less <= row[name]
            assert beyond or score(nearer)[0] >= 0.5


def test_two_features_where_one_is_not_enough():
    """A pair only where no single feature is enough, each part as small as the other lets it."""

    def score(columns):
        return np.where((columns["debt"] <= 3) & (columns["income"] >= 6), 0.1, 0.9)

    ((pair,), why) = counterfactuals(THREE, {"debt": 8.0, "income": 2.0, "age": 5.0}, score)
    assert (pair.changes, pair.outcome, why) == ({"debt": 3.0, "income": 6.0}, "approve", None)


def test_what_a_person_cannot_change_is_never_changed():
    """Where only age matters there is no counterfactual, and it is said."""
    found, why = counterfactuals(
        THREE, {"debt": 8.0, "income": 2.0, "age": 5.0}, lambda columns: columns["age"] / 10
    )
    assert found == ()
    assert why == "no change of one or two actionable features within their ranges"
    fixed = card_with(number("age"))
    _, why = counterfactuals(fixed, {"age": 5.0}, lambda columns: np.full(len(columns["age"]), 0.9))
    assert why == "no actionable feature can be changed"


def test_categories_and_missing_values():
    """A category may become one that its card allows; what was not sent is not changed."""
    card = card_with(
        category("job", "none", "part", "full") | {"actionable": True, "change": {"to": ["full"]}},
        number("debt", **can("decrease")),
    )
    row = {"job": "none", "debt": float("nan")}
    asked = []

    def score(columns):
        asked.extend(columns["job"])
        return np.where(columns["job"] == "full", 0.2, 0.8)

    ((one,), _) = counterfactuals(card, row, score)
    assert one.changes == {"job": "full"}
    assert "part" not in asked
    assert paths(card.feature("debt"), float("nan")) == []


def test_integers_move_by_whole_steps_and_fine_steps_become_coarser():
    """An integer's step is 1; a range of a million steps is searched in at most 512 multiples."""
    integer = Feature(name="n", type="integer", meaning="a count", range=(0, 5), actionable=True)
    down, up = paths(integer, 3.0)
    assert (down.values, up.values) == ((2.0, 1.0, 0.0), (4.0, 5.0))
    fine = Feature.model_validate(number("x", **can("decrease", 0, 10, 1e-5)))
    (way,) = paths(fine, 9.0)
    assert 256 <= len(way.values) <= 513
    assert np.allclose(np.array(way.values) / 1e-5, np.round(np.array(way.values) / 1e-5))


@pytest.mark.parametrize("own", [1e308, -1e308, 1.7e308, 15.0, -3.5])
def test_from_a_value_outside_the_range_changes_lead_into_it(own):
    """Callers may send any number: each direction has at most its steps, all in the range."""
    ways = paths(Feature.model_validate(number("x", **can("either", 1, 10, 0.3))), own)
    (way,) = [way for way in ways if way.values]
    assert all(1 <= value <= 10 for value in way.values)
    assert len(way.values) == 30
    row = {"debt": own, "income": 5.0, "age": 5.0}
    found, why = counterfactuals(THREE, row, lambda of: np.where(of["debt"] == 1.0, 0.1, 0.9))
    assert [one.changes for one in found] == ([{"debt": 1.0}] if own > 10 else [])
    assert (why is None) == bool(found)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"actionable": False, "change": {"direction": "decrease"}}, "not actionable"),
        ({"actionable": True, "change": {"range": (0, 99)}}, "leaves its range"),
        ({"actionable": True, "change": {"to": ["a"]}}, "is for categories"),
        ({"actionable": True, "type": "integer", "change": {"step": 0.5}}, "whole number"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(changed, message):
    """How a feature can be changed has to fit the feature."""
    with pytest.raises(ValidationError, match=message):
        Feature.model_validate(number("x") | changed)


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_each_denied_applicant_is_answered_by_the_model(version):
    """Of the held-out people who are denied, each change is sent to a session of its own, as the
    form would be: the outcome is the one told; nothing but the allowed features is changed."""
    card = Card.model_validate(yaml.safe_load((MORTGAGE / version / "card.yaml").read_text()))
    model = (MORTGAGE / version / "model.onnx").read_bytes()
    background = as_columns(card, read_parquet(MORTGAGE / "background.parquet"))
    explainer = Explainer(card, model, background)
    session = onnxruntime.InferenceSession(model)
    words = card.outputs.outcome

    def ask(form):
        fed = {name: np.array([[value]], object if isinstance(value, str) else np.float32)
               for name, value in form.items()}  # fmt: skip
        return words.of(float(session.run(["score"], fed)[0][0, 0]))

    answered = {0: 0, 1: 0, 2: 0}
    for person in csv.DictReader((MORTGAGE / "held_out.csv").open()):
        form = {f.name: person[f.name] if f.type == "category" else float(person[f.name])
                for f in card.features}  # fmt: skip
        if ask(form) != words.adverse:
            continue
        found, why = counterfactuals(card, form, explainer.scores)
        answered[len(found[0].changes) if found else 0] += 1
        assert found or why.startswith("no change of one or two")
        for one in found:
            assert set(one.changes) <= {"dir", "hir", "lvr"}
            assert all(value < form[name] for name, value in one.changes.items())
            assert ask(form | one.changes) == one.outcome == "approve"
    assert answered == {"v1": {0: 0, 1: 29, 2: 4}, "v2": {0: 0, 1: 34, 2: 5},
                        "v3": {0: 57, 1: 175, 2: 33}}[version]  # fmt: skip


def test_a_search_that_fails_takes_nothing_else_away():
    """The row's reasons stay told; it says that the search failed, and the next row has its own."""

    class Moody:
        def scores(self, columns):
            if columns["debt"][0] == 7.0:
                raise ValueError("no")
            return columns["debt"] / 10

    debts = {"debt": [7.0, 8.0], "income": [5.0, 5.0], "age": [5.0, 5.0]}
    asked = Asked(None, None, debts, [0.7, 0.8], ["deny", "deny"])
    rows = [{"outcome": "deny", "reasons": [1]}, {"outcome": "deny", "reasons": [2]}]
    tell_counterfactuals(Moody(), THREE, asked, rows)
    assert rows[0] == {"outcome": "deny", "reasons": [1], "counterfactuals": [],
                       "no_counterfactual": "failed"}  # fmt: skip
    assert rows[1]["reasons"] == [2]
    assert rows[1]["counterfactuals"][0]["changes"] == {"debt": 4.75}


def test_the_sentence_says_where_it_leads_and_not_from_where():
    """Meaning, name, value and unit; the person's own value stands in neither data nor text."""
    card = card_with(number("debt", unit="EUR", **can("decrease")))
    row = {"debt": 7.77}
    ((one,), _) = counterfactuals(card, row, lambda columns: columns["debt"] / 10)
    told = describe_change(card, one)
    assert told["text"] == (
        "With meaning of debt (debt) at 4.75 EUR, all else as it was, the outcome would be approve."
    )
    assert "7.77" not in str(told)
