"""Evaluation: SQL's three truth values on rows of canonical values."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any

import pytest

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.patterns import fold
from auth_rls.predicates.predicate import (
    TRUE,
    All,
    Any_,
    Const,
    Not,
    Predicate,
    Ref,
    Select,
    Test,
)

TRUTHS = (True, False, None)
ROW = {"n": 5, "null": None, "text": "Straße É", "yes": True, "price": Decimal("1.50")}


def verdict(predicate: Predicate, row: dict[str, Any] = ROW) -> bool | None:
    return matcher(predicate)(row)


@pytest.mark.parametrize(("a", "b"), list(product(TRUTHS, TRUTHS)))
def test_connectives_are_kleenes(a: bool | None, b: bool | None) -> None:
    parts = (Const(a), Const(b))
    both = False if False in (a, b) else None if None in (a, b) else True
    either = True if True in (a, b) else None if None in (a, b) else False
    assert verdict(All(parts)) is both
    assert verdict(Any_(parts)) is either
    assert verdict(Not(Const(a))) is (None if a is None else not a)


def test_of_nothing_all_is_true_and_any_is_false() -> None:
    assert verdict(All(())) is True
    assert verdict(Any_(())) is False


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("exact", 5, True),
        ("exact", 6, False),
        ("gt", 4, True),
        ("gt", 5, False),
        ("gte", 5, True),
        ("lt", 5, False),
        ("lte", 5, True),
        ("range", (5, 5), True),
        ("range", (6, 4), False),
        ("in", frozenset({1, 5}), True),
        ("in", frozenset({1}), False),
        ("in", frozenset(), False),
        ("isnull", True, False),
        ("isnull", False, True),
        ("isdistinct", 5, False),
        ("isdistinct", 6, True),
        ("isdistinct", None, True),
    ],
)
def test_a_value_compares(op: str, value: Any, expected: bool) -> None:
    assert verdict(Test("n", op, value)) is expected


@pytest.mark.parametrize(
    ("op", "value"),
    [("exact", 5), ("gt", 5), ("range", (1, 9)), ("in", frozenset({5}))]
    + [(op, "a") for op in ("iexact", "contains", "istartswith", "like", "imatch")],
)
@pytest.mark.parametrize("column", ["null", "absent"])
def test_a_null_is_neither_equal_nor_unequal(column: str, op: str, value: Any) -> None:
    assert verdict(Test(column, op, value)) is None
    assert verdict(Not(Test(column, op, value))) is None


def test_null_is_seen_by_the_null_tests() -> None:
    assert verdict(Test("null", "isnull", True)) is True
    assert verdict(Test("null", "isnull", False)) is False
    assert verdict(Test("null", "isdistinct", 5)) is True
    assert verdict(Test("null", "isdistinct", None)) is False
    assert verdict(Test("null", "is", None)) is True
    assert verdict(Test("null", "is", True)) is False
    assert verdict(Test("yes", "is", True)) is True
    assert verdict(Test("yes", "is", False)) is False


def test_even_null_is_not_in_the_empty_set() -> None:
    assert verdict(Test("null", "in", frozenset())) is False


@pytest.mark.parametrize("test", [("isnull", True), ("is", None), ("isdistinct", 5)])
def test_a_column_that_is_absent_is_not_even_null(test: tuple[str, Any]) -> None:
    assert verdict(Test("absent", *test)) is None


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("exact", "Straße É", True),
        ("exact", "straße É", False),
        ("iexact", "sTRAßE É", True),
        ("iexact", "strasse É", False),
        ("iexact", "straße é", False),
        ("contains", "aße", True),
        ("contains", "ASSE", False),
        ("contains", "", True),
        ("icontains", "RAß", True),
        ("startswith", "Str", True),
        ("startswith", "str", False),
        ("istartswith", "STR", True),
        ("endswith", "É", True),
        ("iendswith", "E É", True),
        ("iendswith", "é", False),
        ("gt", "Straße", True),
        ("lt", "a", True),
        ("lt", "É", True),
    ],
)
def test_text_compares_by_code_point_and_folds_ascii_only(
    op: str, value: str, expected: bool
) -> None:
    assert verdict(Test("text", op, value)) is expected


@pytest.mark.parametrize("char", ["\u212a", "İ", "ı", "ſ", "É", "ǅ"])
def test_no_letter_beyond_ascii_folds(char: str) -> None:
    assert fold(f"A{char}Z") == f"a{char}z"


@pytest.mark.parametrize(
    "test",
    [
        Test("n", "exact", Ref("role")),
        Test("n", "in", (1, Ref("role"))),
        Test("n", "in", Select("a.B", "c", TRUE)),
        Test("n", "nonsense", 1),
    ],
)
def test_what_is_not_bound_is_not_evaluated(test: Test) -> None:
    with pytest.raises(ValueError):
        matcher(test)


def test_moments_compare_to_the_microsecond() -> None:
    row = {"at": datetime(2025, 11, 3, 9, 32, 55, 1, UTC)}
    assert verdict(Test("at", "gt", datetime(2025, 11, 3, 9, 32, 55, 0, UTC)), row) is True
    assert verdict(Test("at", "exact", datetime(2025, 11, 3, 9, 32, 55, 0, UTC)), row) is False
