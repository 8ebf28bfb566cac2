"""Parsing: the grammar, and what it refuses with which words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.parse import (
    MAX_DEPTH,
    MAX_SELECTS,
    MAX_TESTS,
    MAX_TEXT,
    MAX_VALUES,
    PredicateError,
    TableSchema,
    parse,
)
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    All,
    Any_,
    Not,
    Predicate,
    Ref,
    RefTest,
    Select,
    Test,
    columns,
    refs,
    selects,
)

NOTE = TableSchema(
    "zoo.Note",
    {
        "id": ("id", Kind.INT),
        "pk": ("id", Kind.INT),
        "owner": ("owner_id", Kind.INT),
        "owner_id": ("owner_id", Kind.INT),
        "team_id": ("team_id", Kind.INT),
        "title": ("title", Kind.TEXT),
        "is_public": ("is_public", Kind.BOOL),
        "price": ("price", Kind.DECIMAL),
        "ref": ("ref", Kind.UUID),
        "address": ("address", Kind.INET),
        "data": ("data", Kind.JSON),
        "odd__name": ("odd__name", Kind.INT),
        "all": ("all", Kind.INT),
    },
)
MEMBER = TableSchema(
    "zoo.Member",
    {
        "user": ("user_id", Kind.INT),
        "user_id": ("user_id", Kind.INT),
        "team_id": ("team_id", Kind.INT),
        "role": ("role", Kind.TEXT),
        "data": ("data", Kind.JSON),
    },
)


def resolve(label: str) -> TableSchema:
    if label != "zoo.Member":
        raise LookupError(f"there is no model {label}")
    return MEMBER


def parsed(json: Any) -> Predicate:
    return parse(json, NOTE, resolve)


@pytest.mark.parametrize(
    ("json", "predicate"),
    [
        (True, TRUE),
        (False, FALSE),
        ({"owner": 7}, Test("owner_id", "exact", 7)),
        ({"owner_id__exact": 7}, Test("owner_id", "exact", 7)),
        ({"pk": 7}, Test("id", "exact", 7)),
        ({"odd__name": 1}, Test("odd__name", "exact", 1)),
        ({"odd__name__gt": 1}, Test("odd__name", "gt", 1)),
        ({"all__exact": 1}, Test("all", "exact", 1)),
        ({"title__in": ["a", "b", "a"]}, Test("title", "in", frozenset({"a", "b"}))),
        ({"title__in": []}, Test("title", "in", frozenset())),
        ({"price__range": [1, "2.50"]}, Test("price", "range", (Decimal(1), Decimal("2.5")))),
        ({"title__isnull": False}, Test("title", "isnull", False)),
        ({"data__isnull": True}, Test("data", "isnull", True)),
        ({"title": "$$user.id"}, Test("title", "exact", "$user.id")),
        ({"title__icontains": ""}, Test("title", "icontains", "")),
        ({"owner": "$user.id"}, Test("owner_id", "exact", Ref("user", ("id",), Kind.INT))),
        ({"title": "$role"}, Test("title", "exact", Ref("role", (), Kind.TEXT))),
        (
            {"team_id__in": "$claims.app.teams"},
            Test("team_id", "in", Ref("claims", ("app", "teams"), Kind.INT)),
        ),
        (
            {"team_id__in": [1, "$user.team_id"]},
            Test("team_id", "in", (1, Ref("user", ("team_id",), Kind.INT))),
        ),
        ({"not": {"owner": 1}}, Not(Test("owner_id", "exact", 1))),
        ({"all": []}, All(())),
        ({"any": [{"owner": 1}, True]}, Any_((Test("owner_id", "exact", 1), TRUE))),
        (
            {"owner": 1, "title": "a"},
            All((Test("owner_id", "exact", 1), Test("title", "exact", "a"))),
        ),
    ],
)
def test_the_grammar_reads(json: Any, predicate: Predicate) -> None:
    assert parsed(json) == predicate


def test_a_select_reads_another_table() -> None:
    json = {
        "team_id__in": {
            "select": "team_id",
            "from": "zoo.Member",
            "where": {"user": "$user.id", "role__in": ["admin"]},
        }
    }
    where = All(
        (
            Test("user_id", "exact", Ref("user", ("id",), Kind.INT)),
            Test("role", "in", frozenset({"admin"})),
        )
    )
    assert parsed(json) == Test(
        "team_id", "in", Select("zoo.Member", "team_id", where, "", Kind.INT)
    )


def test_a_select_without_where_takes_every_row_and_a_prefix_makes_text() -> None:
    json = {"title__in": {"select": "team_id", "from": "zoo.Member", "prefix": "room:"}}
    select = Select("zoo.Member", "team_id", TRUE, "room:", Kind.TEXT)
    assert parsed(json) == Test("title", "in", select)


def test_what_a_predicate_reads_is_told() -> None:
    inner = {"select": "team_id", "from": "zoo.Member", "where": {"role": "$role"}}
    deep = {
        "select": "user",
        "from": "zoo.Member",
        "where": {"team_id__in": inner, "role": "$claims.r"},
    }
    predicate = parsed({"any": [{"owner__in": deep}, {"not": {"title__in": ["$user.x", "b"]}}]})
    assert columns(predicate) == {"owner_id", "title"}
    assert [select.column for select in selects(predicate)] == ["user_id", "team_id"]
    assert {ref.source for ref in refs(predicate)} == {"role", "claims", "user"}


@pytest.mark.parametrize(
    ("json", "words", "path"),
    [
        (None, "expected true, false or an object", ""),
        ("true", "expected true, false or an object", ""),
        (1, "expected true, false or an object", ""),
        ([], "expected true, false or an object", ""),
        ({}, "write true to allow every row", ""),
        ({"owners": 1}, "unknown column 'owners' of zoo.Note; did you mean 'owner'?", "owners"),
        ({"zzz": 1}, "unknown column 'zzz' of zoo.Note; there are address, all, data", "zzz"),
        ({"zzz__gt": 1}, "unknown column 'zzz'", "zzz__gt"),
        ({"owner__name": 1}, "unknown operator 'name' on owner; int columns take exact", None),
        ({"owner__like": "a"}, "unknown operator 'like'", None),
        ({"owner__contains": "a"}, "operator 'contains' does not suit owner, which is int", None),
        ({"is_public__gt": True}, "operator 'gt' does not suit is_public, which is bool", None),
        ({"address__gt": "::1"}, "does not suit address", None),
        ({"data": {}}, "operator 'exact' does not suit data, which is json", None),
        ({"ref__startswith": "a"}, "does not suit ref", None),
        ({"owner": True}, "expected a whole number, not True", "owner"),
        ({"owner": "7"}, "expected a whole number, not '7'", "owner"),
        ({"owner": 1.5}, "expected a whole number", "owner"),
        ({"owner": 2**63}, "64 bits", "owner"),
        ({"owner": None}, "use isnull", "owner"),
        ({"owner": [1]}, "expected a whole number", "owner"),
        ({"title": 7}, "expected text, not 7", "title"),
        ({"title": "a\0"}, "NUL", "title"),
        ({"title": "a" * (MAX_TEXT + 1)}, "characters", "title"),
        ({"title__isnull": 1}, "isnull takes true or false, not 1", None),
        ({"title__isnull": "$role"}, "isnull takes true or false", None),
        ({"owner__in": 7}, "in takes a list", None),
        ({"owner__in": "7"}, "in takes a list", None),
        ({"title__in": "$$x"}, "in takes a list", None),
        ({"owner__in": [1, None]}, "use isnull", "owner__in[1]"),
        ({"owner__in": [[1]]}, "expected a whole number", "owner__in[0]"),
        ({"owner__in": [1] * (MAX_VALUES + 1)}, "values in lists", None),
        ({"price__range": [1]}, "range takes a list of two values", None),
        ({"price__range": [1, 2, 3]}, "range takes a list of two values", None),
        ({"price__range": {"select": "a"}}, "range takes a list of two values", None),
        ({"owner": "$user"}, "unknown reference '$user'; there are $user.id", "owner"),
        ({"owner": "$user.a.b"}, "unknown reference", None),
        ({"owner": "$claims."}, "unknown reference", None),
        ({"owner": "$role.x"}, "unknown reference", None),
        ({"owner": "$now"}, "For the text itself write '$$now'", None),
        ({"all": True}, '"all" takes a list of predicates', "all"),
        ({"any": {"owner": 1}}, '"any" takes a list of predicates', "any"),
        ({"not": [True]}, "expected true, false or an object", "not"),
        ({"not": True, "owner": 1}, '"not" must be the only key', ""),
        ({"any": [True, {"x": 1}]}, "unknown column", "any[1].x"),
        ({1: 2}, "expected a column name", None),
        ({"owner": {"select": "user", "from": "zoo.Member"}}, "goes with in only", "owner"),
        ({"owner__in": {}}, "a select is", None),
        ({"owner__in": {"select": 1, "from": "zoo.Member"}}, "a select is", None),
        ({"owner__in": {"select": "user", "from": "zoo.No"}}, "no model", "owner__in.from"),
        ({"owner__in": {"select": "x", "from": "zoo.Member"}}, "unknown column 'x'", None),
        ({"owner__in": {"select": "role", "from": "zoo.Member"}}, "cannot be compared", None),
        ({"title__in": {"select": "data", "from": "zoo.Member"}}, "cannot be compared", None),
        (
            {"owner__in": {"select": "user", "from": "zoo.Member", "prefix": "a"}},
            "a prefix needs a text column",
            None,
        ),
        (
            {"title__in": {"select": "role", "from": "zoo.Member", "prefix": 1}},
            "expected text",
            None,
        ),
        ({"title__in": {"select": "role", "from": "zoo.Member", "limit": 1}}, "unknown key", None),
        (
            {"owner__in": {"select": "user", "from": "zoo.Member", "where": {"owner": 1}}},
            "unknown column 'owner' of zoo.Member",
            "owner__in.where.owner",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_words_and_place(
    json: Any, words: str, path: str | None
) -> None:
    with pytest.raises(PredicateError) as caught:
        parsed(json)
    assert words in caught.value.message
    assert path is None or caught.value.path == path
    assert str(caught.value).endswith(caught.value.message)


def nested(depth: int) -> Any:
    json: Any = True
    for _ in range(depth - 1):
        json = {"not": json}
    return json


def test_nesting_is_bounded() -> None:
    parsed(nested(MAX_DEPTH))
    with pytest.raises(PredicateError, match="deeper"):
        parsed(nested(MAX_DEPTH + 1))
    with pytest.raises(PredicateError, match="deeper"):
        parsed(nested(100_000))


def selects_within(count: int) -> Any:
    json: Any = {"user": 1}
    for _ in range(count):
        json = {"user__in": {"select": "user", "from": "zoo.Member", "where": json}}
    return json


def test_selects_nest_to_a_bound_and_stand_side_by_side_without_one() -> None:
    deepest = selects_within(MAX_SELECTS)
    parse({"all": [deepest] * 20}, MEMBER, resolve)
    with pytest.raises(PredicateError, match="selects within each other"):
        parse(selects_within(MAX_SELECTS + 1), MEMBER, resolve)


def test_a_select_counts_as_a_level() -> None:
    json: Any = nested(MAX_DEPTH)
    with pytest.raises(PredicateError, match="deeper"):
        parse(
            {"user__in": {"select": "user", "from": "zoo.Member", "where": json}}, MEMBER, resolve
        )


def test_size_is_bounded() -> None:
    parsed({"any": [True] * (MAX_TESTS - 1)})
    with pytest.raises(PredicateError, match="conditions"):
        parsed({"any": [True] * MAX_TESTS})
    with pytest.raises(PredicateError, match="conditions"):
        parsed({"any": [{"owner": 1, "pk": 2}] * (MAX_TESTS // 2)})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["all", "any", "not", "owner", "title__in", "select", "from", "x__gt"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_either_read_or_refused(json: Any) -> None:
    try:
        parsed(json)
    except PredicateError as error:
        assert error.message


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ({"$claims.aal": "aal2"}, Kind.TEXT),
        ({"$role__in": ["anon", "authenticated"]}, Kind.TEXT),
        ({"$claims.level__gte": 2}, Kind.DECIMAL),
        ({"$claims.level__range": [1, 2.5]}, Kind.DECIMAL),
        ({"$claims.verified": True}, Kind.BOOL),
        ({"$claims.deep.org__isnull": False}, Kind.TEXT),
        ({"$claims.org": "$user.id"}, Kind.INT),
        ({"$user.id__lt": 7}, Kind.INT),
        ({"$claims.org__icontains": "$claims.other"}, Kind.TEXT),
    ],
)
def test_a_reference_is_compared_alone(written: Any, kind: Kind) -> None:
    found = parse(written, NOTE, resolve, lambda name: Kind.INT)
    assert isinstance(found, RefTest)
    assert found.ref.kind is kind


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"$claims": "x"}, "unknown reference"),
        ({"$nobody.id": 1}, "unknown reference"),
        ({"$claims.level__in": [1, "a"]}, "of one type"),
        ({"$claims.level__contains": 1}, "does not suit"),
        ({"$role__gt": 1}, "expected text"),
        ({"$role__isnull": "x"}, "isnull takes"),
        ({"$role__in": {"select": "a", "from": "b.C"}}, "compared with a column"),
        ({"$user.id": "x"}, "whole number"),
    ],
)
def test_a_comparison_of_a_reference_that_cannot_be_is_refused(written: Any, message: str) -> None:
    with pytest.raises(PredicateError, match=message):
        parse(written, NOTE, resolve, lambda name: Kind.INT)


ODD = TableSchema(
    "zoo.Odd",
    {"code": ("code", Kind.TEXT), "price": ("price", Kind.DECIMAL)},
    refused={"price": "the database has price as money", "tags": "tags is an ArrayField"},
    ignoring_case=frozenset({"code"}),
)


def odd(json: Any) -> Predicate:
    return parse(json, ODD, lambda label: ODD)


def test_a_column_that_ignores_case_is_compared_so() -> None:
    assert odd({"code": "A"}) == Test("code", "iexact", "A")
    assert odd({"code": "$role"}) == Test("code", "iexact", Ref("role", (), Kind.TEXT))
    assert odd({"code__contains": "A"}) == Test("code", "icontains", "A")
    both = Any_((Test("code", "iexact", "A"), Test("code", "iexact", "b")))
    assert odd({"code__in": ["b", "A"]}) == both
    assert odd({"code__in": []}) == FALSE


@pytest.mark.parametrize(
    "json",
    [
        {"code__lt": "A"},
        {"code__range": ["A", "B"]},
        {"code__in": "$claims.codes"},
        {"code__in": {"select": "code", "from": "zoo.Odd"}},
    ],
)
def test_what_has_no_form_without_case_is_refused(json: Any) -> None:
    with pytest.raises(PredicateError, match="ignores case"):
        odd(json)


@pytest.mark.parametrize("key", ["price", "price__gt", "price__isnull", "tags", "tags__contains"])
def test_a_column_whose_type_cannot_be_compared_is_refused_with_the_reason(key: str) -> None:
    with pytest.raises(PredicateError, match=r"as money|is an ArrayField"):
        odd({key: 1})


def test_such_a_column_is_not_selected_either() -> None:
    with pytest.raises(PredicateError, match="the database has price as money"):
        odd({"code__in": {"select": "price", "from": "zoo.Odd"}})


RELATED = TableSchema(
    "zoo.Note",
    {"team": ("team_id", Kind.INT), "team_id": ("team_id", Kind.INT)},
    relations={"team": ("zoo.Team", "id"), "team_id": ("zoo.Team", "id")},
)


@pytest.mark.parametrize(
    ("key", "rest"),
    [("team__name", "name"), ("team__name__icontains", "name__icontains"), ("team__id", "id")],
)
def test_a_join_is_refused_with_the_select_that_does_the_same(key: str, rest: str) -> None:
    with pytest.raises(PredicateError) as caught:
        parse({key: 1}, RELATED, resolve)
    select = f'{{"team__in": {{"select": "id", "from": "zoo.Team", "where": {{"{rest}": …}}}}}}'
    assert str(caught.value) == (
        f"{key}: no joins here: {key!r} asks for a column of zoo.Team; use a select: {select}"
    )


def test_an_operator_on_a_foreign_key_is_no_join() -> None:
    assert parse({"team__gt": 1}, RELATED, resolve) == Test("team_id", "gt", 1)
    with pytest.raises(PredicateError, match="does not suit"):
        parse({"team__contains": 1}, RELATED, resolve)
