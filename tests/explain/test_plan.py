"""What a worker explains with is what the analyst explains with."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml

from gateway.attribution.lookup import ColumnBits, Lookup
from gateway.attribution.plan import Plan, decode, encode
from gateway.attribution.weights import Weights
from gateway.card import Card
from gateway.explain.explainer import Explainer
from gateway.explain.worker import as_columns, read_parquet

MORTGAGE = Path(__file__).parents[2] / "models" / "mortgage"


@pytest.mark.parametrize(("version", "form"), [("v1", Weights), ("v2", Lookup), ("v3", Lookup)])
def test_a_plan_read_back_gives_the_same_bits(version, form):
    """Written, read, and asked about rows alone and together: the analyst's values, bit for bit."""
    card = Card.model_validate(yaml.safe_load((MORTGAGE / version / "card.yaml").read_text()))
    rows = as_columns(card, read_parquet(MORTGAGE / "background.parquet"))
    explainer = Explainer(card, (MORTGAGE / version / "model.onnx").read_bytes(), rows)
    plan = decode(encode(explainer.plan))
    assert isinstance(plan.form, form)
    assert (plan.method, plan.background) == (explainer.method, explainer._background_digest)
    explained = explainer.explain(rows).values
    session = onnxruntime.InferenceSession(plan.model)
    for part in (slice(0, 1), slice(5, 12), slice(0, 400)):
        fed = {name: values[part].reshape(-1, 1) for name, values in rows.items()}
        fed = {name: x if x.dtype == object else x.astype(np.float32) for name, x in fed.items()}
        (matrix,) = session.run([plan.matrix], fed)
        assert plan.form.values(matrix).tobytes() == explained[part].tobytes()


@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("units", [1, 3, 150, 1000])
def test_sums_do_not_depend_on_the_batch(units, features):
    """However many units and features: rows one by one, in few and in many have the same bits, and
    they are the plain sum in the order of the units."""
    dice = np.random.default_rng(units * features)
    cuts = np.sort(dice.normal(size=5).astype(np.float32))
    bits = dice.integers(0, 4, (7, units)).astype(np.uint8)
    table = dice.normal(size=(4 * units, features)) * 10.0 ** dice.integers(-9, 9, (4 * units, 1))
    lookup = Lookup((ColumnBits(0, cuts, bits),), 4 * np.arange(units, dtype=np.int32), table)
    matrix = dice.normal(size=(40, 1)).astype(np.float32)
    matrix[3] = np.nan
    together = lookup.values(matrix)
    for row in range(40):
        assert lookup.values(matrix[row : row + 1]).tobytes() == together[row].tobytes()
    nan = np.zeros(features)
    for unit in range(units):
        nan += table[4 * unit + int(bits[6, unit])]
    assert together[3].tobytes() == nan.tobytes()


def test_what_cannot_be_planned_says_so_and_other_bytes_are_refused():
    """A plan without a form keeps its reason; bytes that are no plan are a ValueError."""
    assert decode(encode(Plan(unavailable="sampled"))) == Plan(unavailable="sampled")
    for data in (b"", b"not a plan", encode(Plan())[:-40]):
        with pytest.raises(ValueError, match="no plan|pickled|data left"):
            decode(data)
