"""Limits: buckets and budgets, with the time as an argument."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.util.token_bucket import Rate, TokenBucket


def taken(bucket: TokenBucket, now: float, attempts: int) -> int:
    return sum(bucket.take(now) for _ in range(attempts))


def test_a_full_bucket_gives_its_burst_at_once_and_no_more() -> None:
    assert taken(TokenBucket(Rate(10, 100)), 5.0, 200) == 100


def test_an_empty_bucket_refills_at_its_rate() -> None:
    bucket = TokenBucket(Rate(10, 100))
    taken(bucket, 0.0, 100)
    assert taken(bucket, 0.5, 100) == 5
    assert taken(bucket, 1.0, 100) == 5


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = TokenBucket(Rate(10, 20))
    taken(bucket, 0.0, 20)
    assert taken(bucket, 1_000.0, 100) == 20


def test_a_refused_take_takes_nothing() -> None:
    bucket = TokenBucket(Rate(1, 5))
    assert not bucket.take(0.0, 6)
    assert bucket.take(0.0, 5)


def test_a_clock_that_steps_back_earns_nothing() -> None:
    bucket = TokenBucket(Rate(10, 10))
    taken(bucket, 100.0, 10)
    assert not bucket.take(50.0)
    assert not bucket.take(100.0)
    assert bucket.take(100.2)


def test_no_rate_is_no_limit() -> None:
    bucket = TokenBucket(Rate.of(None))
    assert taken(bucket, 0.0, 10_000) == 10_000
    assert bucket.take(0.0, 1e12)


@pytest.mark.parametrize(
    "rate, expected",
    [
        (Rate.of(50), Rate(50, 50)),
        (Rate.of(0.5), Rate(0.5, 1.0)),
        (Rate.of(10, 100), Rate(10, 100)),
        (Rate.per_window(30, 30), Rate(1.0, 30)),
        (Rate.per_window(None, 30), Rate(None, 1.0)),
    ],
)
def test_a_rate_may_be_named_in_several_ways(rate, expected) -> None:
    assert rate == expected


@pytest.mark.parametrize("rate, burst", [(0, 1), (-1, 1), (math.nan, 1), (1, 0), (None, -1)])
def test_a_rate_that_is_not_positive_is_refused(rate, burst) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Rate(rate, burst)


@given(
    st.floats(0.1, 100),
    st.floats(1, 100),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 20)), max_size=40),
)
def test_no_schedule_gets_more_than_burst_plus_rate(per_second, burst, steps) -> None:
    bucket, now, total = TokenBucket(Rate(per_second, burst)), 0.0, 0
    for pause, n in steps:
        now += pause
        total += n if bucket.take(now, n) else 0
        assert total <= burst + per_second * now + 1e-6
