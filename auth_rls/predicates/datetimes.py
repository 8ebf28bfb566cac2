"""Dates, times, instants and durations, read from text.

The readers accept the forms that the triggers write, that Django and PostgreSQL print, and that
policies and filters use: ISO 8601 with "T" or a space, with or without a zone. Text without a zone
is UTC. Digits beyond the microsecond are cut off. Each reader raises ValueError for another form;
its text gives an example of the right one.

Pure: no Django, no I/O, no clock.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?", re.ASCII)
_ZONE = re.compile(r"([+-])(\d{2})(?::?(\d{2})(?::?(\d{2}))?)?", re.ASCII)
# Django's form: P1DT02H03M04.5S, with the sign in front.
_ISO_INTERVAL = re.compile(
    r"([+-]?)P(?:(-?\d{1,10})W)?(?:(-?\d{1,10})D)?"
    r"(?:T(?:(-?\d{1,10})H)?(?:(-?\d{1,12})M)?(?:(-?)(\d{1,14})(?:\.(\d{1,9}))?S)?)?",
    re.ASCII,
)
# PostgreSQL's form: 1 day 02:03:04.5, each part with a sign of its own.
_DAYS = re.compile(r"([+-]?\d{1,10}) ?days?", re.ASCII)
_SPAN_CLOCK = re.compile(r"([+-]?)(\d{1,10}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?", re.ASCII)


def read_date(value: Any) -> date:
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match:
        return date(*map(int, match.groups()))
    raise ValueError(f"expected a date such as 2025-11-03, not {value!r}")


def _micro(fraction: str | None) -> int:
    """Microseconds of a decimal fraction. Cut off, since rounding could reach the next day."""
    return int((fraction or "").ljust(6, "0")[:6])


def _clock(text: str) -> time | None:
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    hour, minute, second, fraction = match.groups()
    return time(int(hour), int(minute), int(second or 0), _micro(fraction))


def read_time(value: Any) -> time:
    clock = _clock(value) if isinstance(value, str) else None
    if clock is None:
        raise ValueError(f"expected a time such as 09:32:55.1, not {value!r}")
    return clock


def read_datetime(value: Any) -> datetime:
    moment = _moment(value) if isinstance(value, str) else None
    if moment is None:
        raise ValueError(
            f"expected a date and time such as 2025-11-03T09:32:55.123456+00:00, not {value!r}"
        )
    return moment


def _moment(text: str) -> datetime | None:
    day = _DATE.match(text)
    if day is None:
        return None
    rest = text[day.end() :]
    clock: time | None = time()
    offset = timedelta()
    if rest:
        if rest[0] not in "Tt ":
            return None
        rest = rest[1:]
        if rest[-1:] in ("Z", "z"):
            rest = rest[:-1].rstrip(" ")
        else:
            cut = max(rest.rfind("+"), rest.rfind("-"))
            if cut > 0:
                zone = _ZONE.fullmatch(rest[cut:])
                if zone is None:
                    return None
                sign, hours, minutes, seconds = zone.groups()
                offset = timedelta(
                    hours=int(hours), minutes=int(minutes or 0), seconds=int(seconds or 0)
                )
                if sign == "-":
                    offset = -offset
                rest = rest[:cut].rstrip(" ")
        clock = _clock(rest)
    if clock is None:
        return None
    local = datetime.combine(date(*map(int, day.groups())), clock, UTC)
    try:
        return local - offset
    except OverflowError:
        raise ValueError("expected a moment between the years 1 and 9999") from None


def read_interval(value: Any) -> timedelta:
    span = _span(value.strip(" \t\n\r\f\v")) if isinstance(value, str) else None
    if span is None:
        raise ValueError(f"expected a duration such as P1DT02H03M04.5S, not {value!r}")
    return span


def _span(text: str) -> timedelta | None:
    try:
        span = _iso_span(text)
        return _sql_span(text) if span is None else span
    except OverflowError:
        raise ValueError("expected a duration of less than a billion days") from None


def _iso_span(text: str) -> timedelta | None:
    match = _ISO_INTERVAL.fullmatch(text)
    if match is None or not any(match.groups()[1:]):
        return None
    sign, weeks, days, hours, minutes, minus, seconds, fraction = match.groups()
    tail = timedelta(seconds=int(seconds or 0), microseconds=_micro(fraction))
    span = timedelta(
        weeks=int(weeks or 0), days=int(days or 0), hours=int(hours or 0), minutes=int(minutes or 0)
    ) + (-tail if minus else tail)
    return -span if sign == "-" else span


def _sql_span(text: str) -> timedelta | None:
    days = _DAYS.match(text)
    rest = text[days.end() :].lstrip(" ") if days else text
    clock = _SPAN_CLOCK.fullmatch(rest)
    if clock is None and (days is None or rest):
        return None
    span = timedelta(days=int(days[1])) if days else timedelta()
    if clock:
        sign, hours, minutes, seconds, fraction = clock.groups()
        part = timedelta(
            hours=int(hours),
            minutes=int(minutes),
            seconds=int(seconds or 0),
            microseconds=_micro(fraction),
        )
        span += -part if sign == "-" else part
    return span
