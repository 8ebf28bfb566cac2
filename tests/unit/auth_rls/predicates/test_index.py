"""Index keys: under which values of a row a predicate has to be looked at."""

from __future__ import annotations

from typing import Any

import pytest

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

A, B = (Test(name, "exact", 1) for name in "ab")


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
