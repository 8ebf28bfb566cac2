"""Simplification brings predicates that say the same to one form, and changes no verdict."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.index import index_keys
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    UNKNOWN,
    All,
    Any_,
    Not,
    Predicate,
    Test,
)
from auth_rls.predicates.simplify import simplify

A, B, C = (Test(name, "exact", 1) for name in "abc")


ROW = {"n": 5, "null": None, "text": "Straße É", "yes": True, "price": Decimal("1.50")}


def verdict(predicate: Predicate, row: dict[str, Any] = ROW) -> bool | None:
    return matcher(predicate)(row)


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
