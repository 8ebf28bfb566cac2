"""Canonical values: three ways in, one value out."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.utils.duration import duration_iso_string
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.kinds import Kind, from_literal, from_python, from_row, from_text

MOMENT = datetime(2025, 11, 3, 9, 32, 55, 123456, UTC)
UUID_TEXT = "6c84fb90-12c4-11e1-840d-7b25c5ee775a"


@pytest.mark.parametrize("text", ["true", "t", "TRUE", " yes ", "on", "1", "tr"])
def test_a_filter_reads_true_as_postgresql_does(text: str) -> None:
    assert from_text(Kind.BOOL, text) is True


@pytest.mark.parametrize("text", ["false", "f", "No", "off", "0", "n"])
def test_a_filter_reads_false_as_postgresql_does(text: str) -> None:
    assert from_text(Kind.BOOL, text) is False


@pytest.mark.parametrize("text", ["", "o", "2", "maybe", "truee"])
def test_other_words_are_no_bool(text: str) -> None:
    with pytest.raises(ValueError, match="expected true or false"):
        from_text(Kind.BOOL, text)


@pytest.mark.parametrize("value", [True, False, 1.5, "1", math.inf, [1], 2**63, -(2**63) - 1])
def test_a_policy_takes_only_whole_64_bit_numbers_as_integers(value: Any) -> None:
    with pytest.raises(ValueError):
        from_literal(Kind.INT, value)


def test_an_integer_may_be_as_large_as_64_bits_allow() -> None:
    assert from_literal(Kind.INT, 2**63 - 1) == 2**63 - 1
    assert from_text(Kind.INT, str(-(2**63))) == -(2**63)
    assert from_literal(Kind.INT, 7.0) == 7


def test_an_astronomic_number_is_refused_at_once() -> None:
    for text in ("1e300", "1e999999999"):
        with pytest.raises(ValueError):
            from_literal(Kind.INT, Decimal(text))


@pytest.mark.parametrize("text", ["", "1.5", "0x10", "1_000", "١", "--1", "1 2", "9" * 50])
def test_a_filter_on_an_integer_takes_plain_digits_only(text: str) -> None:
    with pytest.raises(ValueError):
        from_text(Kind.INT, text)


@pytest.mark.parametrize("kind", [Kind.FLOAT, Kind.DECIMAL])
@pytest.mark.parametrize("text", ["nan", "inf", "Infinity", "-inf", "1e99999", "", "abc", "1,5"])
def test_what_is_not_a_finite_number_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError):
        from_text(kind, text)


@pytest.mark.parametrize("kind", [Kind.FLOAT, Kind.DECIMAL])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, None, [1.5]])
def test_a_policy_has_no_infinite_number(kind: Kind, value: Any) -> None:
    with pytest.raises(ValueError):
        from_literal(kind, value)


def test_a_decimal_is_what_its_author_wrote() -> None:
    assert from_literal(Kind.DECIMAL, 0.1) == Decimal("0.1")
    assert from_literal(Kind.DECIMAL, "12.50") == Decimal("12.5")
    assert from_text(Kind.DECIMAL, " +1.5e2 ") == 150
    assert from_row(Kind.DECIMAL, Decimal("12.50")) == Decimal("12.5")


def test_an_infinite_double_in_a_row_is_kept() -> None:
    assert from_row(Kind.FLOAT, Decimal("9e999")) == math.inf
    assert from_row(Kind.FLOAT, "-Infinity") == -math.inf


def test_not_a_number_in_a_row_is_no_value() -> None:
    for kind in (Kind.FLOAT, Kind.DECIMAL):
        with pytest.raises(ValueError):
            from_row(kind, "NaN")


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_text_has_no_nul(text: str) -> None:
    with pytest.raises(ValueError, match="NUL"):
        from_literal(Kind.TEXT, text)
    with pytest.raises(ValueError, match="NUL"):
        from_text(Kind.TEXT, text)


def test_text_has_no_lone_surrogates() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        from_text(Kind.TEXT, "\ud800")


def test_text_keeps_its_white_space() -> None:
    assert from_text(Kind.TEXT, "  a\n") == "  a\n"


@pytest.mark.parametrize(
    "text", [UUID_TEXT, UUID_TEXT.upper(), UUID_TEXT.replace("-", ""), f"{{{UUID_TEXT}}}"]
)
def test_every_spelling_of_a_uuid_is_one_value(text: str) -> None:
    assert from_literal(Kind.UUID, text) == UUID_TEXT
    assert from_text(Kind.UUID, text) == UUID_TEXT


@pytest.mark.parametrize("text", ["", UUID_TEXT[:-1], UUID_TEXT + "0", "g" * 32, 5])
def test_what_is_no_uuid_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="expected a UUID"):
        from_literal(Kind.UUID, text)


@pytest.mark.parametrize(
    "text",
    [
        "2025-11-03T09:32:55.123456Z",
        "2025-11-03 09:32:55.123456+00:00",
        "2025-11-03T09:32:55.123456",
        "2025-11-03 11:32:55.123456 +02",
        "2025-11-03T15:02:55.123456+0530",
        "2025-11-03T00:32:55.123456789-09:00",
    ],
)
def test_every_spelling_of_a_moment_is_one_value(text: str) -> None:
    assert from_literal(Kind.DATETIME, text) == MOMENT
    assert from_text(Kind.DATETIME, text) == MOMENT
    assert from_row(Kind.DATETIME, text) == MOMENT


def test_a_date_alone_is_its_midnight_in_utc() -> None:
    assert from_literal(Kind.DATETIME, "2025-11-03") == datetime(2025, 11, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", "now", "2025-13-01", "2025-02-30", "20251103", "2025-11-03T", "2025-11-03T25:00"],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_literal(Kind.DATETIME, text)


@pytest.mark.parametrize(
    "value",
    ["2025-11-03T09:32:55+", "2025-11-03x09:32", "0001-01-01T00:00:00+01:00", 1762162375, True],
)
def test_a_moment_must_be_whole_and_within_the_calendar(value: Any) -> None:
    with pytest.raises(ValueError):
        from_literal(Kind.DATETIME, value)


def test_dates_and_times_are_read() -> None:
    assert from_literal(Kind.DATE, "2025-11-03") == date(2025, 11, 3)
    assert from_row(Kind.TIME, "09:32:55.1") == time(9, 32, 55, 100000)
    assert from_text(Kind.TIME, "09:32") == time(9, 32)
    for kind, text in ((Kind.DATE, "2025-11-03T00:00"), (Kind.TIME, "24:00"), (Kind.TIME, "9")):
        with pytest.raises(ValueError):
            from_text(kind, text)


@given(st.timedeltas())
def test_a_duration_reads_back_from_the_form_django_writes(span: timedelta) -> None:
    assert from_row(Kind.INTERVAL, duration_iso_string(span)) == span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("1 day 02:03:04.5", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("-00:00:01", timedelta(seconds=-1)),
        ("-1 days +00:00:01", timedelta(days=-1, seconds=1)),
        ("3 days", timedelta(days=3)),
        ("100:00", timedelta(hours=100)),
        ("P2W", timedelta(weeks=2)),
        ("PT0S", timedelta(0)),
    ],
)
def test_a_duration_reads_from_the_form_postgresql_prints(text: str, span: timedelta) -> None:
    assert from_text(Kind.INTERVAL, text) == span


@pytest.mark.parametrize("text", ["", "P", "PT", "day", "5", "1 month", "P9999999999D"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_text(Kind.INTERVAL, text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::FFFF:1.2.3.4", "::ffff:1.2.3.4"),
        ("::1/128", "::1"),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str) -> None:
    assert from_row(Kind.INET, text) == address


@pytest.mark.parametrize("text", ["", "1.2.3", "10.0.0.0/8", "host", "1.2.3.4.5", "fe80::1%eth0"])
def test_what_is_no_host_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="IP address"):
        from_text(Kind.INET, text)


@pytest.mark.parametrize("kind", list(Kind))
def test_null_stays_null_in_a_row_and_is_no_literal(kind: Kind) -> None:
    assert from_row(kind, None) is None
    assert from_python(kind, None) is None
    with pytest.raises(ValueError, match="isnull"):
        from_literal(kind, None)


@pytest.mark.parametrize("kind", [Kind.JSON, Kind.BINARY])
def test_opaque_values_are_compared_with_nothing(kind: Kind) -> None:
    assert from_row(kind, {"a": [1]}) == {"a": [1]}
    for read in (from_literal, from_text):
        with pytest.raises(ValueError, match="only isnull"):
            read(kind, "x")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.JSON, Kind.BINARY)])
@given(
    value=st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.decimals(allow_nan=True)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
)
def test_garbage_is_refused_with_a_value_error_and_nothing_else(kind: Kind, value: Any) -> None:
    for read in (from_literal, from_row, from_python):
        with contextlib.suppress(ValueError):
            read(kind, value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            from_text(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "canonical"),
    [
        (Kind.INT, "42", 42),
        (Kind.TEXT, 42, "42"),
        (Kind.TEXT, True, "true"),
        (Kind.TEXT, UUID(UUID_TEXT), UUID_TEXT),
        (Kind.UUID, UUID(UUID_TEXT), UUID_TEXT),
        (Kind.DATETIME, MOMENT.astimezone(timezone(timedelta(hours=5))), MOMENT),
        (Kind.DATETIME, MOMENT.replace(tzinfo=None), MOMENT),
        (Kind.DATE, date(2025, 11, 3), date(2025, 11, 3)),
        (Kind.TIME, time(9, 32), time(9, 32)),
        (Kind.INTERVAL, timedelta(1), timedelta(1)),
        (Kind.DECIMAL, 5, Decimal(5)),
        (Kind.BOOL, "true", True),
    ],
)
def test_a_subjects_value_meets_the_column_it_is_compared_with(
    kind: Kind, value: object, canonical: object
) -> None:
    assert from_python(kind, value) == canonical


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.INT, "abc"),
        (Kind.INT, True),
        (Kind.BOOL, 1),
        (Kind.TEXT, 1.5),
        (Kind.TEXT, {"a": 1}),
        (Kind.DATE, MOMENT),
        (Kind.DATETIME, date(2025, 11, 3)),
    ],
)
def test_a_subjects_value_of_another_kind_is_refused(kind: Kind, value: object) -> None:
    with pytest.raises(ValueError):
        from_python(kind, value)
