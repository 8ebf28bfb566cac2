"""A new operator is one entry: everything that knows operators takes it from there."""

from __future__ import annotations

import pytest

from auth_rls.predicates.describe import describe
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.operators import FILTER_WORDS, OPERATORS, Operator
from auth_rls.predicates.parse import PredicateError, TableSchema, parse
from auth_rls.predicates.predicate import Not, Predicate, Test
from auth_rls.sql.compile import condition
from realtime.protocol.filters import FilterError, parse_filter
from tests.zoo.models import Specimen

COLUMNS = {"char": Kind.TEXT, "big": Kind.INT}
LONGER = Operator(
    name="longerthan",
    kinds=frozenset({Kind.TEXT}),
    in_policies=True,
    in_filters=("longer",),
    denied_in_filters=("notlonger",),
    judge=lambda value: lambda found: len(found) > len(value),
    words=("is longer than", "is not longer than"),
    sql=lambda dialect, column, value, sql: (
        f"length({dialect.as_text(column, sql)}) > length(CAST(%s AS text))",
        [value],
    ),
)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, LONGER.name, LONGER)
    monkeypatch.setitem(FILTER_WORDS, "longer", (LONGER, False))
    monkeypatch.setitem(FILTER_WORDS, "notlonger", (LONGER, True))


def policy(json: object) -> Predicate:
    names = {name: (name, kind) for name, kind in COLUMNS.items()}

    def no_other(label: str) -> TableSchema:
        raise LookupError(label)

    return parse(json, TableSchema("zoo.Specimen", names), no_other)


def test_a_filter_and_a_policy_can_say_it() -> None:
    longer = Test("char", "longerthan", "ab")
    assert parse_filter("char=longer.ab", COLUMNS) == longer
    assert parse_filter('char=longer."ab"', COLUMNS) == longer
    assert parse_filter("char=notlonger.ab", COLUMNS) == Not(longer)
    assert parse_filter("char=not.longer.ab", COLUMNS) == Not(longer)
    assert policy({"char__longerthan": "ab"}) == longer


def test_it_is_refused_on_columns_of_other_kinds() -> None:
    with pytest.raises(FilterError, match="longer does not apply to int"):
        parse_filter("big=longer.7", COLUMNS)
    with pytest.raises(PredicateError, match="operator 'longerthan' does not suit big"):
        policy({"big__longerthan": 7})


def test_it_is_among_the_operators_that_an_error_lists() -> None:
    with pytest.raises(PredicateError, match="istartswith, longerthan, lt"):
        policy({"char__bigger": "a"})


def test_it_is_described_affirmed_and_denied() -> None:
    longer = Test("char", "longerthan", "ab")
    assert describe(longer) == "char is longer than “ab”"
    assert describe(Not(longer)) == "char is not longer than “ab”"


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["char=longer.ab", "char=notlonger.ab", "char=longer.é"])
def test_it_is_judged_as_the_database_selects(text: str) -> None:
    chars = ("", "a", "ab", "abc", "éé", "é", None)
    rows = {Specimen.objects.create(char=char).pk: char for char in chars}
    predicate = parse_filter(text, COLUMNS)
    judge = matcher(predicate)
    chosen = Specimen.objects.filter(condition(predicate, Specimen)).values_list("pk", flat=True)
    assert set(chosen) == {pk for pk, char in rows.items() if judge({"char": char}) is True}
    assert 0 < len(chosen) < len(chars)
    assert judge({"char": None}) is None
