"""What holds copies back: limit, breaker and sampling, each by itself."""

from __future__ import annotations

import pytest

from gateway.dataplane.restraint import (
    FAILURES,
    OPEN_AT_MOST_S,
    OPEN_S,
    SHARE_AT_LEAST,
    Breaker,
    Limit,
    Sampling,
)


def test_a_limit_shrinks_by_tenths_and_grows_by_one() -> None:
    """Down on timeouts and busy answers, never below one; up only where half of it is in use."""
    limit = Limit(10)
    limit.note("upstream_timeout", 504, 10)
    assert limit.value == 9
    limit.note(None, 200, 1)
    assert limit.value == 9
    limit.note(None, 200, 5)
    assert limit.value == 10
    limit.note(None, 200, 10)
    assert limit.value == 10
    for _ in range(100):
        limit.note(None, 503, 10)
    assert limit.value == 1


def test_a_models_own_error_is_an_answer() -> None:
    """A status of 500 neither shrinks the limit nor opens the breaker: it is what was asked."""
    limit, breaker = Limit(4), Breaker()
    for _ in range(2 * FAILURES):
        limit.note(None, 500, 4)
        breaker.note(None, 0.0)
    assert limit.value == 4
    assert breaker.lets(0.0)


def test_the_breaker_opens_tries_one_and_closes() -> None:
    """After so many without an answer nothing is sent; later one copy; its answer decides."""
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.note("upstream_timeout", 0.0)
    assert breaker.lets(0.0)
    breaker.note("upstream_reset", 0.0)
    assert not breaker.lets(OPEN_S / 2)
    assert breaker.is_open(OPEN_S / 2)

    assert breaker.lets(OPEN_S)
    assert not breaker.lets(OPEN_S)  # one at a time
    breaker.note("upstream_timeout", OPEN_S)
    assert not breaker.lets(2 * OPEN_S)
    assert breaker.lets(3 * OPEN_S)  # twice as long as the first time
    breaker.note(None, 3 * OPEN_S)
    assert breaker.lets(3 * OPEN_S)
    assert breaker.lets(3 * OPEN_S)


def test_the_breaker_is_never_open_for_ever() -> None:
    """However often it failed, and though a try came to nothing that tells."""
    breaker, now = Breaker(), 0.0
    for _ in range(100):
        breaker.note("upstream_connect_failed", now)
        now += OPEN_AT_MOST_S
        assert breaker.lets(now)
    breaker.forget_try()
    assert breaker.lets(now)


def each_second(sampling: Sampling, lag_s: float, seconds: int) -> None:
    for _ in range(seconds):
        sampling.note(lag_s)
        sampling.note(0.0)
        sampling.each_second()


def test_sampling_halves_while_the_loop_lags() -> None:
    """Each five seconds running; a good second between begins anew; it comes back by eighths."""
    sampling = Sampling()
    each_second(sampling, 0.03, 4)
    each_second(sampling, 0.001, 1)
    each_second(sampling, 0.03, 4)
    assert sampling.share == 1.0
    each_second(sampling, 0.03, 1)
    assert sampling.share == 0.5
    each_second(sampling, 0.03, 5)
    assert sampling.share == 0.25
    each_second(sampling, 0.03, 1000)
    assert sampling.share == SHARE_AT_LEAST
    each_second(sampling, 0.001, 8)
    assert sampling.share == 1.0


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_sampling_takes_its_share_by_the_exchange(share: float) -> None:
    """The same exchange always, so that its copies stay together."""
    sampling = Sampling()
    sampling.share = share
    ids = [f"01a20a0b-a594-7dfa-bc2f-0c05{n * 4294967 % 2**32:08x}" for n in range(1000)]
    taken = [sampling.takes(identity) for identity in ids]
    assert taken == [sampling.takes(identity) for identity in ids]
    assert abs(sum(taken) / 1000 - share) < 0.02
