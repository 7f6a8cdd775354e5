"""Feedback lines: what is read is what was told, and what is wrong is named."""

from __future__ import annotations

import uuid

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.feedback import (
    BODY_AT_MOST,
    LABELS_AT_MOST,
    ROW_AT_MOST,
    Label,
    batches,
    read_label,
    read_lines,
)

NOW = 1_795_000_000_000_000_000
ID = "01939b1e-7000-7000-8000-000000000001"
words = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
values = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**15), 10**15), words,
    st.floats(-1e15, 1e15, allow_nan=False),
)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.uuids(), st.integers(0, ROW_AT_MOST), values, words), min_size=1, max_size=20
    )
)
def test_a_line_is_read_as_it_was_told(told):
    """Id, row beside or behind it, value and source come through; the time is ours if none is."""
    lines = [
        {"id": f"{identity}/{row}", "label": value, "source": source}
        if place % 2
        else {"id": str(identity).upper(), "row": row, "label": value, "source": source}
        for place, (identity, row, value, source) in enumerate(told)
    ]
    found = read_lines(b"\n".join(map(orjson.dumps, lines)), NOW, "caller")
    assert list(found) == [Label(str(i), r, v, NOW, s) for i, r, v, s in told]


def test_what_is_not_said_is_row_0_now_and_the_callers():
    """The defaults of row, time and source."""
    assert read_label({"id": ID, "label": 1}, NOW, "loans-app") == Label(ID, 0, 1, NOW, "loans-app")


def test_a_byte_order_mark_and_ends_of_lines_of_windows_are_taken():
    """As an editor there leaves them."""
    line = orjson.dumps({"id": ID, "label": 1})
    found = read_lines(b"\xef\xbb\xbf" + line + b"\r\n" + line + b"\r\n", NOW, "x")
    assert found == (Label(ID, 0, 1, NOW, "x"),) * 2


def test_times_have_a_zone_and_are_exact():
    """Microseconds survive, and zones are reckoned with."""
    told = read_label({"id": ID, "label": 1, "observed_at": "2026-01-01T01:00:00.000001+01:00"},
                      NOW, "x")  # fmt: skip
    assert told.observed == 1_767_225_600_000_001_000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 1: '{' is not JSON"),
        (b"[1]", "line 1: [1]: an object"),
        (b'{"label": 1}', "id=None"),
        (b'{"id": "x", "label": 1}', "id='x'"),
        (b'{"id": "%b/-1", "label": 1}' % ID.encode(), "-1'"),
        (b'{"id": "%b/65536", "label": 1}' % ID.encode(), "row=65536"),
        (b'{"id": "%b/1", "row": 2, "label": 1}' % ID.encode(), "row=2: the id says 1"),
        (b'{"id": "%b", "row": true, "label": 1}' % ID.encode(), "row=True"),
        (b'{"id": "%b"}' % ID.encode(), "label: is missing"),
        (b'{"id": "%b", "label": "she said so"}' % ID.encode(), "label='she said so'"),
        (b'{"id": "%b", "label": [1]}' % ID.encode(), "label=[1]"),
        (b'{"id": "%b", "label": 1e16}' % ID.encode(), "label=1e+16"),
        (b'{"id": "%b", "label": 1, "score": 2}' % ID.encode(), "'score': unknown"),
        (b'{"id": "%b", "label": 1, "source": ""}' % ID.encode(), "source=''"),
        (b'{"id": "%b", "label": 1, "observed_at": "2026-01-01"}' % ID.encode(), "with its zone"),
        (b'{"id": "%b", "label": 1, "observed_at": "9000-01-01T00:00:00Z"}' % ID.encode(),
         "in the future"),
        (b'{"id": "%b", "label": 1, "observed_at": "1969-01-01T00:00:00Z"}' % ID.encode(),
         "before 1970"),
        (b"\n \n", "no line"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(line, said):
    """Line, field and value."""
    with pytest.raises(ValueError, match="line|label") as error:
        read_lines(line, NOW, "x")
    assert said in str(error.value)


def test_the_largest_record_fits_a_leaf():
    """A leaf has at most 65,535 bytes, of which the record's other parts take less than 4,000."""
    longest = Label(str(uuid.UUID(int=2**128 - 1)), ROW_AT_MOST, "w" * 64, 2**63, "s" * 64)
    text = orjson.dumps([longest.to_json()] * LABELS_AT_MOST)
    assert len(text) < 65_535 - 4_000


@given(st.lists(st.binary(min_size=1, max_size=2_000), max_size=300))
def test_batches_lose_nothing_and_fit(lines):
    """Every line is in one body, in order, and no body is refused for its size."""
    lines = [line.replace(b"\n", b"x") for line in lines]
    made = list(batches(lines))
    assert [line for body in made for line in body.split(b"\n")] == lines
    assert all(len(body) <= BODY_AT_MOST for body in made)
    assert all(body.count(b"\n") < LABELS_AT_MOST for body in made)
