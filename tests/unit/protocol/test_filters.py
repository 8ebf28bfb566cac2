"""Wire filters: the grammar, the typing by column, and that nothing but FilterError comes out."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.fit import Fit
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE, All, Any_, Not, Test
from realtime.protocol.filters import (
    MAX_CONDITIONS,
    MAX_ITEMS,
    MAX_LENGTH,
    MAX_PATTERN,
    Condition,
    FilterError,
    FilterSyntaxError,
    fitted,
    parse_filter,
    read,
)

Test.__test__ = False  # a predicate node, not a test class

COLUMNS = {kind.value: kind for kind in Kind} | {"id": Kind.INT, "name": Kind.TEXT}
UUID = "6c84fb90-12c4-11e1-840d-7b25c5ee775a"


def exact(column: str, value: object) -> Test:
    return Test(column, "exact", value)


def message(text: str) -> str:
    with pytest.raises(FilterError) as caught:
        parse_filter(text, COLUMNS)
    return caught.value.message


@pytest.mark.parametrize("text", ["", " ", "\t\n "])
def test_a_blank_filter_matches_everything(text) -> None:
    assert parse_filter(text, COLUMNS) == TRUE
    assert read(text) == ()


@pytest.mark.parametrize(
    "text, predicate",
    [
        ("id=eq.5", exact("id", 5)),
        ("id=neq.5", Not(exact("id", 5))),
        ("id=not.eq.5", Not(exact("id", 5))),
        ("id=not.neq.5", Not(Not(exact("id", 5)))),
        ("id=lt.5", Test("id", "lt", 5)),
        ("id=lte.5", Test("id", "lte", 5)),
        ("id=gt.-5", Test("id", "gt", -5)),
        ("id=gte.5", Test("id", "gte", 5)),
        ("id=in.(1,2,2)", Test("id", "in", frozenset({1, 2}))),
        ("id=in.( 1 , 2 )", Test("id", "in", frozenset({1, 2}))),
        ("id=in.()", Test("id", "in", frozenset())),
        ("id=not.in.(1,2)", Not(Test("id", "in", frozenset({1, 2})))),
        ("id=is.null", Test("id", "isnull", True)),
        ("date=not.is.null", Not(Test("date", "isnull", True))),
        ("json=is.null", Test("json", "isnull", True)),
        ("binary=is.NULL", Test("binary", "isnull", True)),
        ("bool=is.true", Test("bool", "is", True)),
        ("bool=is.FALSE", Test("bool", "is", False)),
        ("bool=is.unknown", Test("bool", "isnull", True)),
        ("bool=eq.t", exact("bool", True)),
        ("name=like.a%", Test("name", "like", "a%")),
        ("name=ilike.%b_", Test("name", "ilike", "%b_")),
        ("name=match.^a", Test("name", "match", "^a")),
        ('code=match."a{1,2}"'.replace("code", "name"), Test("name", "match", "a{1,2}")),
        ("name=imatch.^a", Test("name", "imatch", "^a")),
        ("name=isdistinct.x", Test("name", "isdistinct", "x")),
        ("name=isdistinct.null", Test("name", "isdistinct", "null")),
        ("id=isdistinct.5", Test("id", "isdistinct", 5)),
        ("id=isdistinct.null", Not(Test("id", "isnull", True))),
        ("float=eq.1e2", exact("float", 100.0)),
        ("decimal=eq.1.50", exact("decimal", Decimal("1.50"))),
        (f"uuid=eq.{UUID.upper()}", exact("uuid", UUID)),
        ("date=gt.2025-11-03", Test("date", "gt", date(2025, 11, 3))),
        (
            "datetime=gte.2025-11-03T09:32:55+00:00",
            Test("datetime", "gte", datetime(2025, 11, 3, 9, 32, 55, tzinfo=UTC)),
        ),
        ("inet=eq.192.0.2.1", exact("inet", "192.0.2.1")),
        ("id=gt.0,id=lt.100", All((Test("id", "gt", 0), Test("id", "lt", 100)))),
        (" id=eq.1 , name=eq.a ", All((exact("id", 1), exact("name", "a")))),
    ],
)
def test_a_filter_is_the_predicate_it_says(text, predicate) -> None:
    assert parse_filter(text, COLUMNS) == predicate


@pytest.mark.parametrize(
    "text, value",
    [
        ("name=eq.in progress", "in progress"),
        ("name=eq.O'Brien", "O'Brien"),
        ("name=eq.a.b.c", "a.b.c"),
        ("name=eq.a=b", "a=b"),
        ("name=eq.größe", "größe"),
        ("name=eq.", ""),
        ('name=eq.""', ""),
        ('name=eq."a,b"', "a,b"),
        ('name=eq." a "', " a "),
        (r'name=eq."C:\\tmp"', r"C:\tmp"),
        (r'name=eq."say \"hi\""', 'say "hi"'),
        (r"name=eq.C:\tmp", r"C:\tmp"),
        ("name=eq.(a,b)", "(a,b)"),
        ('name=eq."a', '"a'),
        ('name=eq."a,name=eq.b', '"a,name=eq.b'),
        ('name=eq."a"b', '"a"b'),
        ('name=eq."a\\"', '"a\\"'),
        ('name=eq.a"b', 'a"b'),
        ('name=eq."', '"'),
        ("name=eq.null", "null"),
        ("name=eq.not.x", "not.x"),
    ],
)
def test_a_value_is_read_as_the_builder_wrote_it(text, value) -> None:
    assert parse_filter(text, COLUMNS) == exact("name", value)


@pytest.mark.parametrize(
    "items, values",
    [
        ('"a,b",c', {"a,b", "c"}),
        ('a, "b) c" ,d', {"a", "b) c", "d"}),
        (r'"\"","\\"', {'"', "\\"}),
        ("a b,c", {"a b", "c"}),
        ('""', {""}),
        ("a,,b", {"a", "", "b"}),
        ('a"b,c', {'a"b', "c"}),
        ("(a,b)", {"(a", "b)"}),
    ],
)
def test_items_are_split_at_commas_outside_quotes(items, values) -> None:
    text = f"name=in.({items})"
    assert parse_filter(text, COLUMNS) == Test("name", "in", frozenset(values))


def test_a_comma_after_a_quoted_parenthesis_ends_the_list_where_it_should() -> None:
    text = 'name=in.("a)", "b("),id=eq.1'
    assert parse_filter(text, COLUMNS) == All(
        (Test("name", "in", frozenset({"a)", "b("})), exact("id", 1))
    )


@pytest.mark.parametrize(
    "text, detail",
    [
        ("wrong", '["wrong"]'),
        ("undefined", '["undefined"]'),
        ("id=wrong", '["wrong"]'),
        ("id=foo.hey", '["foo", "hey"]'),
        ("id=not.foo.hey", '["foo", "hey"]'),
        ("id=not.not.eq.5", '["not", "eq.5"]'),
        ("id=EQ.5", '["EQ", "5"]'),
        ("id=in.1,2", "`in` filter value must be wrapped by parentheses"),
        ("id=in.(", "`in` filter value must be wrapped by parentheses"),
        ("id=eq.1,,id=eq.2", "filter must not contain empty segments (check for extra commas)"),
        ("id=eq.1,", "filter must not contain empty segments (check for extra commas)"),
        (",", "filter must not contain empty segments (check for extra commas)"),
    ],
)
def test_an_unreadable_filter_is_refused_in_the_official_words(text, detail) -> None:
    with pytest.raises(FilterSyntaxError) as caught:
        parse_filter(text, COLUMNS)
    assert caught.value.message == detail


def test_an_unknown_column_is_refused_in_the_official_words() -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter("nope=eq.1", COLUMNS)
    assert caught.value.exception == "ERROR P0001 (raise_exception) invalid column for filter nope"


def test_a_name_that_is_no_longer_than_a_columns_gets_the_name_that_it_is_like() -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter("titel=eq.1", {"title": Kind.TEXT})
    assert "Did you mean 'title'?" in (caught.value.hint or "")
    # A long name is compared with none, however like it is.
    long = "x" * 70
    with pytest.raises(FilterError) as caught:
        parse_filter(f"{long}y=eq.1", {long: Kind.TEXT})
    assert "Did you mean" not in (caught.value.hint or "")


def test_too_many_items_are_refused_in_the_official_words() -> None:
    items = ",".join(map(str, range(MAX_ITEMS)))
    assert len(parse_filter(f"id=in.({items})", COLUMNS).value) == MAX_ITEMS
    assert message(f"id=in.({items},0)") == "too many values for `in` filter. Maximum 100"


def test_too_many_conditions_are_refused() -> None:
    text = ",".join(["id=gt.0"] * MAX_CONDITIONS)
    assert len(read(text)) == MAX_CONDITIONS
    with pytest.raises(FilterSyntaxError, match="Maximum 100"):
        read(text + ",id=gt.0")


def test_a_filter_beyond_its_length_is_refused_unread() -> None:
    with pytest.raises(FilterSyntaxError, match="longer than 16384"):
        read("name=eq." + "a" * MAX_LENGTH)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("id=eq.abc", "invalid value for filter id: expected a whole number, not 'abc'"),
        ("id=eq.9223372036854775808", "invalid value for filter id"),
        ("id=in.(1,x)", "invalid value for filter id"),
        ("id=in.(1,,2)", "invalid value for filter id"),
        ("id=eq.null", "invalid value for filter id"),
        ("uuid=eq.1", "invalid value for filter uuid"),
        ("date=gt.yesterday", "invalid value for filter date"),
        ("name=eq.\0", "invalid value for filter name"),
        ("bool=is.maybe", "invalid value for filter bool: is takes null, true, false or unknown"),
    ],
)
def test_a_value_that_does_not_read_in_the_columns_type_says_so(text, expected) -> None:
    assert message(text).startswith(expected)


@pytest.mark.parametrize(
    "text",
    [
        "bool=gt.true",
        "inet=lt.192.0.2.1",
        "json=eq.1",
        "json=in.(1)",
        "binary=neq.00",
        "json=isdistinct.1",
        "id=like.1%",
        "uuid=ilike.a%",
        "date=match.2025",
        "id=is.true",
        "name=is.unknown",
    ],
)
def test_an_operator_the_column_does_not_have_is_refused(text) -> None:
    column = text.partition("=")[0]
    assert message(text).startswith(f"invalid operator for filter {column}: ")


@pytest.mark.parametrize("op", ["match", "imatch"])
@pytest.mark.parametrize("pattern", ["a(", "*", r"(a)\1", "(?=a)", "[z-a]", "a{2000}"])
def test_an_invalid_regular_expression_is_refused_at_once(op, pattern) -> None:
    assert message(f'name={op}."{pattern}"'.replace("\\", "\\\\")).startswith(
        "invalid pattern for filter name: "
    )


def test_a_regular_expression_that_needs_too_much_memory_is_refused() -> None:
    assert message('name=match."((a{30}){30}){30}"').startswith("invalid pattern for filter name")


@pytest.mark.parametrize("op", ["like", "match"])
def test_a_pattern_beyond_its_length_is_refused(op) -> None:
    assert "longer than 1000" in message(f"name={op}." + "a" * (MAX_PATTERN + 1))


def test_a_like_pattern_may_not_end_in_a_lone_escape() -> None:
    assert "escape" in message("name=like.a\\")
    assert parse_filter("name=like.a\\\\", COLUMNS) == Test("name", "like", "a\\\\")


def test_conditions_keep_their_values_as_sent() -> None:
    assert read('name=not.eq."a,b",id=in.(1, 2)') == (
        Condition("name", "eq", '"a,b"', True),
        Condition("id", "in", "(1, 2)", False),
    )


# A renderer with the quoting rules of the JavaScript filter builder.

surrogate_free = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
OPERATORS = ["eq", "neq", "lt", "lte", "gt", "gte", "isdistinct"]


def quote(value: str) -> str:
    if value.strip() != value or any(char in value for char in ',()"\\'):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return value


def render(column: str, op: str, value: object, negated: bool) -> str:
    text = f"({','.join(map(quote, value))})" if isinstance(value, list) else quote(value)
    return f"{column}={'not.' if negated else ''}{op}.{text}"


scalars = st.tuples(st.just("name"), st.sampled_from(OPERATORS), surrogate_free, st.booleans())
lists = st.tuples(
    st.just("name"),
    st.just("in"),
    st.lists(surrogate_free, max_size=5, unique=True).filter(lambda items: items != [""]),
    st.booleans(),
)


def meant(column: str, op: str, value: object, negated: bool) -> object:
    if op == "in":
        found: object = Test(column, "in", frozenset(value))
    elif op == "neq":
        found = Not(exact(column, value))
    else:
        found = Test(column, {"eq": "exact"}.get(op, op), value)
    return Not(found) if negated else found


@given(st.lists(scalars | lists, min_size=1, max_size=4))
def test_what_the_builder_renders_is_read_back(conditions) -> None:
    text = ",".join(render(*condition) for condition in conditions)
    parts = tuple(meant(*condition) for condition in conditions)
    assert parse_filter(text, COLUMNS) == (parts[0] if len(parts) == 1 else All(parts))


PIECES = '= . , ( ) " \\ not. eq in is like match ilike imatch isdistinct null true 1 a* [ % \0 é'
grammar = st.lists(
    st.sampled_from([*COLUMNS, *PIECES.split(" "), " "]),
    max_size=25,
).map("".join)


@given(st.text() | grammar)
def test_no_text_raises_anything_but_a_filter_error(text) -> None:
    try:
        parse_filter(text, COLUMNS)
    except FilterError as error:
        assert error.message


@given(
    st.sampled_from(sorted(COLUMNS)),
    st.sampled_from([*OPERATORS, "in", "is", "like", "match"]),
    st.text(),
)
def test_no_value_raises_anything_but_a_filter_error(column, op, value) -> None:
    try:
        parse_filter(f"{column}={op}.{quote(value)}", COLUMNS)
    except FilterError as error:
        assert error.message


def test_commas_in_parentheses_separate_no_conditions() -> None:
    found = read('id=in.(1,2,3),name=in.("a,b",(c,d)),id=eq.4')
    assert [(one.column, one.value) for one in found] == [
        ("id", "(1,2,3)"),
        ("name", '("a,b",(c,d))'),
        ("id", "4"),
    ]
    assert message(f"id=in.({',' * 16_000})") == "too many values for `in` filter. Maximum 100"


CASELESS = {"name": Fit(ignores_case=True)}


@pytest.mark.parametrize(
    "text, predicate",
    [
        ("name=eq.A", Test("name", "iexact", "A")),
        ("name=neq.A", Not(Test("name", "iexact", "A"))),
        ("name=not.eq.A", Not(Test("name", "iexact", "A"))),
        ("name=in.(A,b)", Any_((Test("name", "iexact", "A"), Test("name", "iexact", "b")))),
        ("name=like.A%", Test("name", "ilike", "A%")),
        ("name=is.null", Test("name", "isnull", True)),
        ("id=eq.1", exact("id", 1)),
    ],
)
def test_a_column_that_ignores_case_is_compared_so(text, predicate) -> None:
    assert parse_filter(text, COLUMNS, CASELESS) == predicate


def test_a_column_that_ignores_case_has_no_order() -> None:
    with pytest.raises(FilterError, match="invalid operator for filter name: lt: the column ign"):
        parse_filter("name=lt.A", COLUMNS, CASELESS)


def test_a_column_whose_type_cannot_be_compared_is_refused_with_the_reason() -> None:
    fits = {"name": Fit("the database has name as money")}
    with pytest.raises(FilterError, match="filter name: the database has name as money"):
        parse_filter("name=eq.A", COLUMNS, fits)


def test_a_condition_of_code_compares_as_its_columns_do() -> None:
    name, score = Test("name", "exact", "Ada"), Test("id", "gt", 3)
    given_ = All((Any_((name, score)), Not(name), TRUE))
    folded = Test("name", "iexact", "Ada")
    assert fitted(given_, CASELESS) == All((Any_((folded, score)), Not(folded), TRUE))
    assert fitted(given_, {}) == given_


def test_a_condition_of_code_on_a_column_that_may_not_be_compared_is_refused() -> None:
    with pytest.raises(FilterError, match="odd type"):
        fitted(Test("name", "exact", "Ada"), {"name": Fit(problem="odd type")})
    with pytest.raises(FilterError, match="ignores case"):
        fitted(Test("name", "gt", "Ada"), CASELESS)
