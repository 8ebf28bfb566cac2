"""When a delivery is tried again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.webhooks.retries import DELAYS, JITTER, RESTS, delay_after, rest_after, retry_after

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def test_a_delivery_is_tried_for_about_a_day_and_then_given_up() -> None:
    delays = [delay_after(failures, 0.0) for failures in range(1, len(DELAYS) + 1)]
    assert delays == list(DELAYS) == sorted(DELAYS)
    assert 20 * 3600 < sum(DELAYS) <= 24 * 3600
    assert delay_after(len(DELAYS) + 1, 0.0) is None


@given(st.integers(1, len(DELAYS)), st.floats(0, 1))
def test_chance_makes_a_delay_longer_by_a_part_of_it(failures: int, chance: float) -> None:
    delay = delay_after(failures, chance)
    assert delay is not None
    assert DELAYS[failures - 1] <= delay <= DELAYS[failures - 1] * (1 + JITTER)


def test_a_webhook_rests_longer_after_each_failure_up_to_a_bound() -> None:
    rests = [rest_after(failures, 0.0) for failures in range(1, 100)]
    assert rests == sorted(rests) and rests[-1] == RESTS[-1]


def test_what_the_receiver_asks_for_makes_it_longer_up_to_an_hour() -> None:
    assert delay_after(1, 0.0, 120) == 120
    assert delay_after(1, 0.0, 10**9) == 3600
    assert delay_after(5, 0.0, 1) == DELAYS[4]
    assert rest_after(1, 0.0, 120) == 120


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("9" * 4_000, 999_999_999.0),
        ("-1", None),
        ("soon", None),
        ("²", None),
        ("Mon, 30 Nov 2026 12:01:00 GMT", 60.0),
        ("Mon, 30 Nov 2026 11:00:00 GMT", 0.0),
        ("Mon, 99 Nov 2026 11:00:00 GMT", None),
    ],
)
def test_the_header_is_a_number_of_seconds_or_a_time(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_any_header_is_read(value: str) -> None:
    found = retry_after(value, NOW)
    assert found is None or found >= 0
