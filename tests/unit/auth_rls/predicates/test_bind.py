"""Binding: a subject's values take the place of references, and what is missing lets nobody in."""

from __future__ import annotations

from typing import Any

import pytest

from auth_rls.predicates.bind import MISSING, bind
from auth_rls.predicates.describe import describe
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.kinds import Kind
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
    RefTest,
    Select,
    Test,
    refs,
)

USER = Ref("user", ("id",), Kind.INT)
TEAMS = Ref("claims", ("teams",), Kind.INT)


def bound(predicate: Predicate, value: Any) -> Predicate:
    return bind(predicate, lambda ref: value)


def test_a_reference_becomes_its_value_in_the_columns_kind() -> None:
    assert bound(Test("owner_id", "exact", USER), 7) == Test("owner_id", "exact", 7)
    assert bound(Test("owner_id", "exact", USER), "7") == Test("owner_id", "exact", 7)
    text = Ref("user", ("id",), Kind.TEXT)
    assert bound(Test("title", "contains", text), 7) == Test("title", "contains", "7")


@pytest.mark.parametrize("value", [MISSING, None, "abc", [7], {"a": 1}, 2**70, 1.5, True])
def test_what_is_missing_or_of_another_kind_makes_the_test_unknown(value: Any) -> None:
    assert bound(Test("owner_id", "exact", USER), value) == UNKNOWN
    denied = bound(Not(Test("owner_id", "exact", USER)), value)
    assert matcher(denied)({"owner_id": 7}) is None


def test_a_reference_to_a_list_serves_in() -> None:
    assert bound(Test("t", "in", TEAMS), [1, "2"]) == Test("t", "in", frozenset({1, 2}))
    assert bound(Test("t", "in", TEAMS), []) == Test("t", "in", frozenset())
    assert bound(Test("t", "in", TEAMS), 5) == UNKNOWN
    assert bound(Test("t", "in", TEAMS), MISSING) == UNKNOWN


def test_a_list_with_something_unknown_says_yes_or_unknown() -> None:
    for test, value in (
        (Test("t", "in", TEAMS), [1, None]),
        (Test("t", "in", TEAMS), [1, "x"]),
        (Test("t", "in", (1, USER)), None),
    ):
        decide = matcher(bound(test, value))
        assert decide({"t": 1}) is True
        assert decide({"t": 2}) is None
        assert decide({"t": None}) is None


def test_a_range_with_one_unknown_end_may_still_say_no() -> None:
    decide = matcher(bound(Test("n", "range", (USER, 10)), None))
    assert decide({"n": 11}) is False
    assert decide({"n": 9}) is None
    assert bound(Test("n", "range", (USER, 10)), 3) == Test("n", "range", (3, 10))


def test_constants_and_plain_tests_stay() -> None:
    plain = All((TRUE, Any_((FALSE, UNKNOWN)), Not(Test("n", "range", (1, 2)))))
    assert bound(plain, None) == plain


def test_a_select_is_bound_within_and_kept_without_sets() -> None:
    where = Test("user_id", "exact", USER)
    test = Test("team_id", "in", Select("zoo.Member", "team_id", where, "", Kind.INT))
    inner = Select("zoo.Member", "team_id", Test("user_id", "exact", 7), "", Kind.INT)
    assert bound(test, 7) == Test("team_id", "in", inner)


def test_a_select_becomes_its_set_without_nulls_and_with_its_prefix() -> None:
    select = Select("zoo.Member", "team_id", Test("user_id", "exact", USER), "room:", Kind.TEXT)
    asked: list[Select] = []

    def set_of(select: Select) -> list[Any]:
        asked.append(select)
        return [1, None, 2]

    result = bind(Test("topic", "in", select), lambda ref: 7, set_of)
    assert result == Test("topic", "in", frozenset({"room:1", "room:2"}))
    assert asked[0].where == Test("user_id", "exact", 7)


def test_a_set_keeps_the_kind_of_its_column() -> None:
    select = Select("zoo.Member", "team_id", TRUE, "", Kind.INT)
    result = bind(Test("team_id", "in", select), lambda ref: None, lambda select: [1, 2])
    assert result == Test("team_id", "in", frozenset({1, 2}))


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        (TRUE, "every row"),
        (FALSE, "no row"),
        (Const(None), "no row, since it is unknown"),
        (
            Any_((Test("owner_id", "exact", USER), Test("is_public", "exact", True))),
            "owner_id is the user's id, or is_public is true",
        ),
        (
            All((Any_((Test("a", "gt", 1), Test("b", "isnull", True))), Test("c", "lte", 2))),
            "(a is greater than 1, or b is null) and c is at most 2",
        ),
        (
            Test(
                "team_id",
                "in",
                Select("demo.Membership", "team_id", Test("user_id", "exact", USER), "", Kind.INT),
            ),
            "team_id is one of team_id in demo.Membership where user_id is the user's id",
        ),
        (
            Test("topic", "in", Select("demo.Room", "id", TRUE, "room:")),
            "topic is one of “room:” followed by id in demo.Room",
        ),
        (Test("n", "in", frozenset({10, 9, 1})), "n is one of 1, 9 or 10"),
        (Test("n", "in", frozenset(range(8))), "n is one of 0, 1, 2, 3, 4 and 3 more"),
        (Test("n", "in", frozenset()), "n is one of nothing"),
        (Test("n", "in", Ref("claims", ("a", "b"))), "n is one of the token's a.b"),
        (Test("n", "range", (1, USER)), "n is between 1 and the user's id"),
        (Not(Test("t", "icontains", "x")), "t does not contain “x” in any case"),
        (Not(Test("t", "isnull", True)), "t is not null"),
        (Test("t", "iexact", "x"), "t is “x” in any case"),
        (Test("t", "exact", Ref("role")), "t is the role"),
        (Not(All((Test("a", "exact", 1), Test("b", "exact", 2)))), "not (a is 1 and b is 2)"),
        (All((TRUE, All(()), Any_(()))), "always and always and never"),
    ],
)
def test_a_predicate_reads_in_words(predicate: Predicate, words: str) -> None:
    assert describe(predicate) == words


@pytest.mark.parametrize(
    ("op", "value", "claim", "verdict"),
    [
        ("exact", "aal2", "aal2", True),
        ("exact", "aal2", "aal1", False),
        ("exact", "aal2", None, None),
        ("exact", "aal2", MISSING, None),
        ("exact", "aal2", ["aal2"], None),
        ("in", frozenset({"a", "b"}), "b", True),
        ("in", frozenset(), MISSING, False),
        ("isnull", True, MISSING, True),
        ("isnull", True, None, True),
        ("isnull", False, ["x"], True),
        ("range", ("a", "c"), "b", True),
        ("istartswith", "AA", "aal2", True),
    ],
)
def test_a_comparison_of_a_reference_becomes_its_verdict(
    op: str, value: Any, claim: Any, verdict: bool | None
) -> None:
    test = RefTest(Ref("claims", ("aal",)), op, value)
    assert bind(test, lambda ref: claim) == Const(verdict)
    assert list(refs(Not(test))) == [test.ref]


def test_two_references_are_compared_with_each_other() -> None:
    test = RefTest(Ref("claims", ("org",), Kind.INT), "exact", Ref("user", ("org",), Kind.INT))
    values = {"claims": "7", "user": 7}
    assert bind(test, lambda ref: values[ref.source]) == TRUE
