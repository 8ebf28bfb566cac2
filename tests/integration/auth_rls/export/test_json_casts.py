"""What the database makes of a claim is what Python makes of it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from auth_rls.export.json_casts import FITS
from auth_rls.export.quoting import SCHEMA
from auth_rls.predicates.kinds import Kind, from_python
from tests.support.vendors import on_postgresql

pytestmark = [pytest.mark.django_db, on_postgresql]

# Whatever a reader of some kind might stumble over, beside what it reads.
_WORDS = """true TRUE f of o on 1 0 -0 +7 007 9223372036854775807 9223372036854775808
-9223372036854775808 1.0 1. .5 . 1e5 1E-5 1e400 1e-400 5e-324 1.7976931348623157e308 1e308
1e99999 0.1 1_000 0x10 NaN Infinity ٣ a ß
6C84FB90-12c4-11e1-840d-7b25c5ee775a {6c84fb90-12c4-11e1-840d-7b25c5ee775a
{6c84fb9012c411e1840d7b25c5ee775a} 6c84-fb90-12c4-11e1-840d-7b25-c5ee-775a
6c84fb90-12c4-11e1-840d-7b25c5ee775 urn:uuid:6c84fb90-12c4-11e1-840d-7b25c5ee775a
2025-11-03 2025-1-3 2025-02-29 2024-02-29 0000-01-01 9999-12-31 10000-01-01 2025-13-01 0001-1-1
09:32 9:32:55 23:59:59.1234567 24:00:00 23:59:60 23:60 09:32:55.1234567890 09:32:55.
2025-11-03T09:32 2025-11-03t09:32:55.123456789Z 2025-11-03T09:32:55+01 2025-11-03T09:32:55+0130
2025-11-03T09:32:55-01:30:15 2025-11-03T 2025-11-03T24:00 0001-01-01T00:00+01 0001-01-01T00:00-01
9999-12-31T23:59:59.999999-00:00:01 9999-12-31T23:59:59.999999+23 2025-11-03T09:32:55+1
2025-11-03T09:32:55+99:99:99 2025-11-03T09:32:55zz 2025-11-033
P1DT02H03M04.5S -P1DT-2H P PT P1W P1WT P-1DT1S PT-1.5S PT-0.0000001S P999999999D P1000000000D
-P999999999D -P999999999DT1S P9999999999W PT99999999999999S PT86399999999999999S
P999999999DT23H59M59.999999S
+P1D PT1.S -PT-5M 02:03 -02:03:04.5 1:2 999:00:00 02:99:99
10.0.0.1 10.0.0.1/32 10.0.0.1/24 010.0.0.1 256.0.0.1 10.1 ::1 ::1/128 ::1/64 2001:DB8::A
2001:db8:0:0:0:0:0:a 1::2::3 ::ffff:1.2.3.4 ::1.2.3.4 ::01.2.3.4 fe80::1%eth0 12345::1
1:2:3:4:5:6:7:8
1:2:3:4:5:6:7:8:9 1:2:3:4:5:6:7:: :: : 1.2.3.4:: ::ffff:0102:0304 ::00001"""
WORDS = _WORDS.split()
WORDS += ["", " 7 ", "\t2025-11-03\n", "\u00a07", "7\x1c", "\x0b7", "\u00a0P1D", "\\", "'", "a b"]
WORDS += ["2025-11-03 09:32", "2025-11-03 09:32:55 Z", "2025-11-03 09:32 +01", "1 day 02:03:04.5"]
WORDS += ["1 days", "-1 day +02:03", "1day", "1 day  -00:00:00.000001", "1 days1:00", "1 days s"]
WORDS += ["999999999 days 23:59:59.999999", "999999999 days 24:00", "-999999999 days -00:01"]
_NUMBERS = """0 -0 7 9223372036854775807 9223372036854775808 -9223372036854775809 1.0 -0.0 1e2 1E+2
9007199254740993.0 9223372036854775807.0 -9223372036854775808.0 1e19 0.1 0.10000000000000000001
1e-400
1e400 1.7976931348623157e308 1.797693134862315807e308 1.797693134862315809e308 5e-324 2e-324 3e-324
4.928262868815278e+16 -4.928262868815278e16 49282628688152784.0 1.2345678901234567e+17
1e-310 0.5 123456789012345678901234567890 1e22 1e23 123456789.123456789"""
NUMBERS = _NUMBERS.split()
OTHERS = ["null", "true", "false", "[]", "[1]", "{}", '{"a": 1}']
DOCUMENTS = [*map(json.dumps, WORDS), *NUMBERS, *OTHERS]


@pytest.fixture
def fits(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {SCHEMA}")
        for functions in FITS.values():
            for function in functions:
                cursor.execute(function.sql)


def in_python(kind: Kind, document: str) -> Any:
    try:
        return from_python(kind, json.loads(document))
    except (ValueError, ArithmeticError):
        return None


def in_sql(kind: Kind, documents: list[str]) -> list[Any]:
    name = FITS[kind][-1].name
    with connection.cursor() as cursor:
        # As text, so that no adapter of the driver comes between.
        cursor.execute(
            f"SELECT {SCHEMA}.{name}(d::json)::text FROM unnest(%s::text[]) "
            "WITH ORDINALITY AS u(d, n) ORDER BY n",
            [documents],
        )
        return [None if text is None else read(kind, text) for (text,) in cursor.fetchall()]


def read(kind: Kind, text: str) -> Any:
    if kind is Kind.DECIMAL:
        return Decimal(text)
    if kind is Kind.FLOAT:
        return float(text)
    return text if kind is Kind.TEXT else from_python(kind, text)


@pytest.mark.parametrize("kind", list(FITS))
def test_a_claim_becomes_the_same_value_in_sql_as_in_python(fits: None, kind: Kind) -> None:
    found = dict(zip(DOCUMENTS, in_sql(kind, DOCUMENTS), strict=True))
    expected = {document: in_python(kind, document) for document in DOCUMENTS}
    assert found == expected
    assert any(value is not None for value in expected.values())


@pytest.mark.parametrize("kind", list(FITS))
def test_the_session_s_own_settings_change_nothing(fits: None, kind: Kind) -> None:
    before = in_sql(kind, DOCUMENTS)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL standard_conforming_strings = off")
        cursor.execute("SET LOCAL extra_float_digits = -3")
        cursor.execute("SET LOCAL TimeZone = 'Asia/Kathmandu'")
    if kind is not Kind.FLOAT:  # whose text is what the second setting is about
        assert in_sql(kind, DOCUMENTS) == before


def test_random_claims_agree_too(fits: None) -> None:
    scalars = (
        st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.sampled_from("0123456789-+:. TZPDHMSWeEdays/abcf{}\n"), max_size=12)
    )

    @settings(max_examples=60)
    @given(st.sampled_from(list(FITS)), st.lists(scalars.map(json.dumps), max_size=50))
    def agree(kind: Kind, documents: list[str]) -> None:
        assert in_sql(kind, documents) == [in_python(kind, text) for text in documents]

    agree()
