"""Which rows a detector of another family is given."""

import numpy as np
import pytest

from gateway.monitor.family import chosen, encoded, reference_rows, window_rows
from load import mixed


@pytest.mark.parametrize(
    ("detector", "rows", "width"),
    [("KSDrift", 3000, 9), ("ChiSquareDrift", 3000, 3), ("FETDrift", 3000, 1),
     ("TabularDrift", 3000, 12), ("ClassifierDrift", 3000, 16), ("MMDDrift", 2000, 16)],
)  # fmt: skip
def test_each_reads_what_it_can_and_no_more_rows_than_it_can_bear(detector, rows, width):
    """Of 3,000 rows those that can be read, MMDDrift 2,000 of them, from the first to the last; the
    window as wide as the reference."""
    reference, _ = mixed.reference_of(1, 3000)
    features = chosen(mixed.CARD, reference, detector)
    then = reference_rows(mixed.CARD, reference, detector, features)
    readable = rows if width == 16 else int(
        np.isfinite([encoded(f, reference.values[f.name].tolist()) for f in features])
        .all(axis=0).sum()
    )  # fmt: skip
    assert then.shape == (readable, width)
    if detector == "MMDDrift":
        whole = reference_rows(mixed.CARD, reference, "LSDDDrift", features)
        assert (then[0].tolist(), then[-1].tolist()) == (whole[0].tolist(), whole[-1].tolist())
    now = [d.values for d in mixed.decisions_of(np.random.default_rng(1), 200, explained=False)]
    seen = window_rows(mixed.CARD, reference, detector, features, now)
    assert seen.shape[1] == width
    assert np.isfinite(seen).all()
