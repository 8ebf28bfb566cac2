"""The operators: what every entry must keep to."""

from __future__ import annotations

import pytest

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.operators import (
    FILTER_WORDS,
    OPERATORS,
    Form,
    Operator,
    operator_of,
    policy_operators,
)

ALL = sorted(OPERATORS.values(), key=lambda operator: operator.name)
by_name = pytest.mark.parametrize("operator", ALL, ids=lambda operator: operator.name)


@by_name
def test_policies_and_filters_use_the_forms_that_they_can_write(operator: Operator) -> None:
    if operator.in_policies:
        assert operator.form in (Form.VALUE, Form.SET, Form.PAIR, Form.FLAG)
    if operator.in_filters or operator.denied_in_filters:
        assert operator.form not in (Form.PAIR, Form.FLAG)
    assert operator.in_policies or operator.in_filters


@by_name
def test_patterns_have_a_language_and_nothing_else_has(operator: Operator) -> None:
    assert (operator.form is Form.PATTERN) is (operator.pattern is not None)


@by_name
def test_the_form_that_ignores_case_ignores_it_already(operator: Operator) -> None:
    if operator.ignoring_case:
        other = operator_of(operator.ignoring_case)
        assert other.ignoring_case == other.name
        assert other.kinds == operator.kinds or Kind.TEXT in other.kinds


def test_a_word_of_a_filter_means_one_operator() -> None:
    words = [word for one in ALL for word in (*one.in_filters, *one.denied_in_filters)]
    assert sorted(words) == sorted(FILTER_WORDS)
    assert len(set(words)) == len(words)


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(ValueError, match="unknown operator 'nonsense'"):
        operator_of("nonsense")


def test_the_operators_of_policies_by_kind_of_column() -> None:
    equality = {"exact", "in", "isnull"}
    order = {*equality, "gt", "gte", "lt", "lte", "range"}
    text = {"contains", "startswith", "endswith"}
    assert policy_operators(Kind.BOOL) == policy_operators(Kind.INET) == equality
    assert policy_operators(Kind.JSON) == policy_operators(Kind.BINARY) == {"isnull"}
    assert policy_operators(Kind.INT) == policy_operators(Kind.DATETIME) == order
    assert policy_operators(Kind.TEXT) == order | text | {f"i{op}" for op in text} | {"iexact"}
