from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.card import Feature
from gateway.monitor.column import Column

NUMBER = Feature(name="lvr", type="number", meaning="loan to value", range=(0, 1.95))
INTEGER = Feature(name="ccs", type="integer", meaning="credit score", range=(1, 6))
CATEGORY = Feature(name="dmi", type="category", meaning="denied", categories=("no", "yes"))

anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just([1])
)


@given(st.sampled_from([NUMBER, INTEGER, CATEGORY]), st.lists(anything))
def test_every_value_is_counted_once(feature, values):
    """Whatever callers send is missing, of the wrong type, or present."""
    column = Column.of_window(feature, values, None)
    assert column.n == len(values) == column.missing + column.wrong_type + column.present
    assert column.comparable <= column.present
    assert 0 <= column.out_of_range + column.unseen <= column.present


def test_what_a_number_cannot_be_is_of_the_wrong_type():
    """Strings and bools are no numbers; None and NaN are missing; infinities are out of range."""
    values = [0.5, 2, "0.5", True, None, np.float32(nan), inf, -0.1, 10**400]
    column = Column.of_window(NUMBER, values, None)
    assert (column.n, column.missing, column.wrong_type, column.out_of_range) == (9, 2, 2, 4)
    assert column.numbers.tolist() == pytest.approx([-0.1, 0.5, 2.0])


def test_a_fraction_is_no_integer():
    """2.5 has the wrong type for an integer, 2.0 has not."""
    column = Column.of_window(INTEGER, [2.0, 2.5, np.int64(3)], None)
    assert (column.wrong_type, column.present) == (1, 2)


def test_single_precision_makes_no_difference():
    """A value that went through float32 ties with its double and stays within the card's range."""
    values = [0.8, 1.95, 0.265]
    narrow = [float(np.float32(value)) for value in values]
    assert narrow != values
    wide, read = (Column.of_window(NUMBER, list(v), None) for v in (values, narrow))
    assert wide.numbers.tolist() == read.numbers.tolist()
    assert read.out_of_range == 0


def test_integers_of_few_values_take_the_levels_of_the_reference():
    """An integer that the reference never had is counted in the last place."""
    reference = Column.of_reference(INTEGER, np.array([1.0, 2, 2, 5, nan]))
    assert (reference.levels, reference.counts.tolist()) == ((1, 2, 5), [1, 2, 1, 0])
    window = Column.of_window(INTEGER, [2, 3, 5], reference)
    assert window.counts.tolist() == [0, 1, 1, 1]


def test_categories_outside_the_card_are_counted_without_their_text():
    """An unseen category adds to one count; a number among categories is of the wrong type."""
    column = Column.of_window(CATEGORY, ["no", "no", "Jane Doe", 1, None], None)
    assert (column.unseen, column.wrong_type, column.missing) == (1, 1, 1)
    assert (column.levels, column.counts.tolist()) == (("no", "yes"), [2, 0, 1])


def test_a_reference_column_cannot_change():
    """The sample that windows are compared with is frozen."""
    column = Column.of_reference(NUMBER, np.array([0.3, 0.1]))
    with pytest.raises(ValueError, match="read-only"):
        column.numbers[0] = 9.0
