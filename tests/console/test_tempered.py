"""Figures over everything are found at a bounded cost, however often they are asked for."""

import threading

import pytest

from gateway.console.tempered import KEPT_MAX, SHARE, Tempered


class Clock:
    def __init__(self):
        self.now = 1_000

    def steady(self):
        return self.now

    def wall(self):
        return self.now + 5


class Catalog:
    """A query lasts `lasts`; each time it is asked another figure comes out."""

    def __init__(self, clock, lasts):
        self.clock, self.lasts, self.asked = clock, lasts, []

    def ask(self, query, *arguments):
        self.clock.now += self.lasts
        self.asked.append((query, *arguments))
        return len(self.asked)


def test_a_figure_is_found_again_when_it_is_worth_it():
    """Until SHARE times as long as it lasted have gone, the former one is given, with its time."""
    clock = Clock()
    catalog = Catalog(clock, 10)
    figures = Tempered(catalog.ask, clock)
    assert figures.asked("counts", "a") == (1, 1_005)
    clock.now += SHARE * 10 - 1
    assert figures.asked("counts", "a") == (1, 1_005)
    clock.now += 1
    assert figures.asked("counts", "a") == (2, 1_005 + (SHARE + 1) * 10)


def test_its_share_of_the_time_is_bounded():
    """Asked for without a pause, it takes at most one part in SHARE of the time."""
    clock = Clock()
    catalog = Catalog(clock, 7)
    figures = Tempered(catalog.ask, clock)
    begun = clock.now
    for _ in range(10_000):
        figures.asked("counts", "a")
        clock.now += 1
    assert 1 < 7 * len(catalog.asked) <= (clock.now - begun) / SHARE + 7


def test_figures_are_told_apart_and_few_are_kept():
    """By query and argument; the oldest goes, and is found again."""
    clock = Clock()
    catalog = Catalog(clock, 10)
    figures = Tempered(catalog.ask, clock)
    for number in range(KEPT_MAX + 1):
        figures.asked("counts", number)
    figures.asked("agreement", KEPT_MAX)
    assert len(catalog.asked) == KEPT_MAX + 2
    figures.asked("agreement", KEPT_MAX)
    assert len(catalog.asked) == KEPT_MAX + 2
    figures.asked("counts", 0)
    assert len(catalog.asked) == KEPT_MAX + 3


def test_a_figure_that_fails_is_asked_for_again():
    """Nothing is kept of it, and nobody waits for it."""
    clock, failing = Clock(), [True]

    def ask(query):
        if failing:
            raise OSError("the catalog is changing")
        return 3

    figures = Tempered(ask, clock)
    with pytest.raises(OSError, match="is changing"):
        figures.asked("counts")
    failing.clear()
    assert figures.asked("counts") == (3, 1_005)


def test_no_two_are_sought_at_once():
    """Whoever comes meanwhile waits and is given what was found."""
    clock, inside, most = Clock(), [], []
    first, go = threading.Event(), threading.Event()

    def ask(query):
        inside.append(query)
        most.append(len(inside))
        first.set()
        go.wait(10)
        clock.now += 10
        inside.remove(query)
        return len(most)

    figures, told = Tempered(ask, clock), []
    asking = [threading.Thread(target=lambda: told.append(figures.asked("counts")[0]))
              for _ in range(4)]  # fmt: skip
    for thread in asking:
        thread.start()
    assert first.wait(10)
    go.set()
    for thread in asking:
        thread.join(10)
    assert told == [1, 1, 1, 1]
    assert most == [1]
