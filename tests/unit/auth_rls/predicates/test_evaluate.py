"""Evaluation: SQL's three truth values on rows of canonical values."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.index import index_keys
from auth_rls.predicates.patterns import fold, like, regex
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    UNKNOWN,
    All,
    Any_,
    Const,
    Not,
    Predicate,
    Ref,
    Select,
    Test,
)
from auth_rls.predicates.simplify import simplify

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
    ("pattern", "text", "expected"),
    [
        ("abc", "abc", True),
        ("abc", "abcd", False),
        ("", "", True),
        ("", "a", False),
        ("%", "", True),
        ("a%", "a\nb", True),
        ("%b%", "abc", True),
        ("a%a", "a", False),
        ("a%b%c", "aXbYc", True),
        ("a%bc%c", "abc", False),
        ("%ab%ab%", "xabab", True),
        ("_", "é", True),
        ("_", "", False),
        ("_", "ab", False),
        ("a_c%", "a\ncd", True),
        (r"100\%", "100%", True),
        (r"100\%", "1000", False),
        (r"\_%", "_a", True),
        (r"\\", "\\", True),
        ("\\", "\\", True),
        (r"a\b", "ab", True),
        ("a.c", "abc", False),
        ("[ab]*", "[ab]*", True),
        ("A%", "abc", False),
        ("%%%", "", True),
    ],
)
def test_like_is_sqls(pattern: str, text: str, expected: bool) -> None:
    assert like(pattern)(text) is expected


def test_ilike_folds_ascii_only() -> None:
    assert like("ÉA%", ignore_case=True)("Éab") is True
    assert like("éa%", ignore_case=True)("Éab") is False


@given(st.text("ab%_\\", max_size=6), st.text("ab", max_size=6))
def test_like_agrees_with_its_definition(pattern: str, text: str) -> None:
    def matches(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "%":
            return any(matches(p[1:], t[i:]) for i in range(len(t) + 1))
        if p[0] == "\\" and len(p) > 1:
            return t[:1] == p[1] and matches(p[2:], t[1:])
        return bool(t) and p[0] in ("_", t[0]) and matches(p[1:], t[1:])

    assert like(pattern)(text) is matches(pattern, text)


def test_a_long_pattern_on_a_long_text_ends() -> None:
    assert like("%a" * 500 + "b")("a" * 20_000) is False
    assert like("%_a" * 200 + "b")("a" * 5_000) is False
    assert regex("(a*)*b")("a" * 20_000) is False


def test_a_regular_expression_searches() -> None:
    assert regex("b.d")("ab\nde") is True
    assert regex("^b")("ab") is False
    assert regex("B", ignore_case=True)("ab") is True


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)", "a{1000}{1000}", "*"])
def test_a_pattern_that_re2_refuses_is_a_value_error(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"invalid regular expression: ."):
        regex(pattern)


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


A, B, C = (Test(name, "exact", 1) for name in "abc")


@pytest.mark.parametrize(
    ("predicate", "simple"),
    [
        (All((A, TRUE, A)), A),
        (All((A, FALSE)), FALSE),
        (All(()), TRUE),
        (Any_((A, FALSE)), A),
        (Any_((A, TRUE)), TRUE),
        (Any_(()), FALSE),
        (Not(Not(A)), A),
        (Not(TRUE), FALSE),
        (Not(UNKNOWN), UNKNOWN),
        (All((A, All((B, All((C,)))))), All((A, B, C))),
        (Any_((C, Any_((B, A)))), Any_((A, B, C))),
        (All((UNKNOWN, FALSE)), FALSE),
        (Test("a", "in", frozenset()), FALSE),
        (Test("a", "in", frozenset({1})), A),
    ],
)
def test_simplifying_brings_one_form(predicate: Predicate, simple: Predicate) -> None:
    assert simplify(predicate) == simple


def test_order_and_repetition_make_no_difference() -> None:
    one = Any_((All((A, Not(B), Any_((B, C)))), Test("z", "in", frozenset("pqr")), B))
    two = Any_((B, Test("z", "in", frozenset("rpq")), All((Any_((C, B, C)), A, Not(B))), B))
    assert simplify(one) == simplify(two)
    assert hash(simplify(one)) == hash(simplify(two))


def test_unknown_is_not_folded_away() -> None:
    assert verdict(simplify(All((A, UNKNOWN))), {"a": 1}) is None
    assert verdict(simplify(Not(All((A, UNKNOWN)))), {"a": 2}) is True


leaves = st.sampled_from([TRUE, FALSE, UNKNOWN]) | st.builds(
    Test,
    st.sampled_from("abc"),
    st.sampled_from(["exact", "gt", "isdistinct"]),
    st.integers(0, 2),
)
leaves |= st.builds(
    Test, st.sampled_from("abc"), st.just("in"), st.frozensets(st.integers(0, 2), max_size=2)
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, max_size=3).map(tuple).map(All),
        st.lists(inner, max_size=3).map(tuple).map(Any_),
    ),
    max_leaves=8,
)
rows = st.fixed_dictionaries({name: st.none() | st.integers(0, 2) for name in "abc"})


@given(trees, rows)
def test_simplifying_changes_no_verdict_and_keys_miss_no_row(
    predicate: Predicate, row: dict[str, Any]
) -> None:
    before = verdict(predicate, row)
    assert verdict(simplify(predicate), row) is before
    assert simplify(simplify(predicate)) == simplify(predicate)
    keys = index_keys(predicate)
    if before is True and keys is not None:
        assert any(row[column] == value for column, value in keys)


@pytest.mark.parametrize(
    ("predicate", "keys"),
    [
        (TRUE, None),
        (FALSE, frozenset()),
        (UNKNOWN, frozenset()),
        (A, {("a", 1)}),
        (Test("a", "in", frozenset({1, 2})), {("a", 1), ("a", 2)}),
        (Test("a", "is", True), {("a", True)}),
        (Test("a", "is", None), None),
        (Test("a", "gt", 1), None),
        (Test("a", "isnull", True), None),
        (Not(A), None),
        (All((Test("a", "in", frozenset({1, 2})), B, Test("c", "gt", 1))), {("b", 1)}),
        (All((Test("a", "gt", 1), Not(B))), None),
        (All((A, UNKNOWN)), frozenset()),
        (All(()), None),
        (Any_((A, B)), {("a", 1), ("b", 1)}),
        (Any_((A, Test("b", "gt", 1))), None),
        (Any_(()), frozenset()),
    ],
)
def test_index_keys_are_what_must_hold(predicate: Predicate, keys: set[Any] | None) -> None:
    assert index_keys(predicate) == keys


def test_moments_compare_to_the_microsecond() -> None:
    row = {"at": datetime(2025, 11, 3, 9, 32, 55, 1, UTC)}
    assert verdict(Test("at", "gt", datetime(2025, 11, 3, 9, 32, 55, 0, UTC)), row) is True
    assert verdict(Test("at", "exact", datetime(2025, 11, 3, 9, 32, 55, 0, UTC)), row) is False
