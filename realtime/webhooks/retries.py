"""When a delivery is tried again, and when that is given up.

After each failure longer, over a day, with jitter, as Standard Webhooks recommends:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

Pure: the time and the chance come in.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

DELAYS: tuple[float, ...] = (
    5,
    60,
    5 * 60,
    15 * 60,
    30 * 60,
    3_600,
    2 * 3_600,
    4 * 3_600,
    8 * 3_600,
    8 * 3_600,
)
"""Seconds after the first, the second, … failure of a delivery until it is tried again. Together
almost a day."""

JITTER = 0.1
"""A delay is longer by up to this part of it."""

RESTS: tuple[float, ...] = (1, 5, 15, 30, 60, 120, 300)
"""Seconds that a webhook rests after its first, second, … failure in a row, whichever delivery it
was: a receiver that is away is asked now and then, however much waits for it."""

_LONGEST_WAIT = 3_600.0


def delay_after(failures: int, chance: float, retry_after: float | None = None) -> float | None:
    """Seconds until a delivery that has failed so many times is tried again; None if it is given
    up. `chance` is a random number from 0 to 1. `retry_after` is what the receiver asked for, which
    makes the delay longer, up to an hour."""
    if failures > len(DELAYS):
        return None
    delay = DELAYS[max(failures, 1) - 1]
    if retry_after is not None:
        delay = max(delay, min(retry_after, _LONGEST_WAIT))
    return delay * (1 + JITTER * chance)


def rest_after(failures: int, chance: float, retry_after: float | None = None) -> float:
    """Seconds in which a webhook is left alone that has failed so many times in a row."""
    rest = RESTS[min(max(failures, 1), len(RESTS)) - 1]
    if retry_after is not None:
        rest = max(rest, min(retry_after, _LONGEST_WAIT))
    return rest * (1 + JITTER * chance)


def retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds that a header Retry-After asks for; None without one that can be read."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
