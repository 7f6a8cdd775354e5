import pytest
from hypothesis import given
from hypothesis import strategies as drawn

from gateway.monitor.reference import duplicates
from gateway.monitor.window import Decision, Window, WindowSettings

SETTINGS = WindowSettings(count=3, at_most_ns=100, minimum=2)


def window_of(*times):
    window = Window("mortgage", "v1", "stable")
    for leaf, at in enumerate(times):
        window.add(Decision(leaf, at, f"id{leaf}", 0.5, "approve", (1.0,), {}))
    return window


def test_a_window_is_full_at_its_count():
    """Three of three decisions close it at the latest of their times."""
    assert not window_of(10, 20).is_full(SETTINGS)
    full = window_of(10, 30, 20)
    assert full.is_full(SETTINGS)
    assert full.closed(SETTINGS) == (30, "count")


def test_a_later_leaf_closes_a_window_by_its_time():
    """A leaf past opened_at + at_most closes it there; one exactly at that time does not."""
    window = window_of(10, 20)
    assert not window.is_overdue(110, SETTINGS)
    assert window.is_overdue(111, SETTINGS)
    assert window.closed(SETTINGS) == (110, "time")


def test_a_window_that_is_cut_closed_with_its_last_decision():
    """Not at the end of a time that is not over: its alerts would be from the future."""
    window = window_of(10, 30)
    window.is_cut = True
    assert window.closed(SETTINGS) == (30, "cut")


def test_an_empty_window_is_never_overdue():
    """Without a first decision there is no time to count from."""
    assert not Window("mortgage", "v1", "stable").is_overdue(10**18, SETTINGS)


def test_an_older_leaf_closes_nothing():
    """Leaves of several workers may cross: a time before the window opened is harmless."""
    assert not window_of(1000).is_overdue(3, SETTINGS)


@pytest.mark.parametrize(
    "wrong", [{"minimum": 501}, {"minimum": 0}, {"at_most_ns": 0}, {"count": 50}]
)
def test_settings_that_could_never_judge_are_refused(wrong):
    """A minimum above the count, or no time at all, is an error that names the figures."""
    with pytest.raises(ValueError, match="window: "):
        WindowSettings(**{"at_most_ns": 1, **wrong})


VALUES = drawn.sampled_from([None, 0.0, -0.0, 1, 1.0, True, "1", float("nan"), 10**400])


@given(drawn.lists(drawn.tuples(*[VALUES] * 7), max_size=40))
def test_repeats_are_rows_of_the_same_text(rows):
    """However few of their values are looked at first."""
    texts = [repr(row) for row in rows]
    assert duplicates(rows) == len(texts) - len(set(texts))
