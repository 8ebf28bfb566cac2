"""Delays double up to a bound, and begin anew after a success."""

from __future__ import annotations

from realtime.util.backoff import Backoff


def test_delays_double_up_to_the_bound() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_after_a_success_the_first_delay_comes_again() -> None:
    backoff = Backoff(0.5, 3.0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 0.5
