"""Operators: everything that is particular to one comparison, in one place.

An `Operator` says how policies and filters name it, which columns and values it takes, what it
means to Python, how people read it and how SQL writes it. The parser of policies, the reader of
filters, evaluation, descriptions and the dialects look it up here. So a new operator is one entry
of `_ALL`, and where databases write it differently, one method of `sql/dialects/base.py` that each
dialect has.

`judge` and `sql` must agree on every row, NULL and values of another kind included. The
differential test (tests/integration/auth_rls/sql/test_compile.py) takes the operators from here
and compares the two.

Pure: no Django, no I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from auth_rls.predicates import patterns
from auth_rls.predicates.kinds import OPAQUE, Kind

if TYPE_CHECKING:
    from auth_rls.sql.columns import Column
    from auth_rls.sql.dialects.base import Dialect, Sql

Judge = Callable[[Any], "bool | None"]
"""A test of a column's value."""


class Form(enum.Enum):
    """What an operator compares a column with."""

    VALUE = enum.auto()
    """A value of the column's kind."""
    VALUE_OR_NULL = enum.auto()
    SET = enum.auto()
    """A frozenset of values, or a select."""
    PAIR = enum.auto()
    """The least and the greatest value."""
    FLAG = enum.auto()
    """True or False, whatever the column's kind."""
    TRUTH = enum.auto()
    """True, False, or None for unknown."""
    PATTERN = enum.auto()
    """A text in the language `Operator.pattern`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One comparison of a column with a value."""

    name: str
    """In predicates, and in policies: `column__name`."""
    kinds: frozenset[Kind]
    """Of the columns that it compares."""
    form: Form = Form.VALUE

    in_policies: bool = False
    """Whether policies may use it. They can write the forms VALUE, SET, PAIR and FLAG."""
    in_filters: tuple[str, ...] = ()
    """Its names in filters: `column=name.value`. Filters can write all forms but PAIR and FLAG."""
    denied_in_filters: tuple[str, ...] = ()
    """Names in filters of its negation."""

    judge: Callable[[Any], Judge]
    """From the bound value to the test of a column's value, made once and used for every row."""
    sees_null: bool = False
    """Whether `judge` decides about NULL too, as None. For other operators NULL is unknown."""
    pattern: patterns.Language | None = None
    """The language of its patterns; `judge` makes a `Pattern` then."""

    words: tuple[str, str]
    """The words between column and value: affirmed, and denied."""
    suffix: str = ""
    """Words after the value."""

    sql: Callable[[Dialect, Column, Any, str], Sql] | None
    """The SQL of a test: from the dialect, the column, the bound value and the column's own SQL.
    None: no database has a comparison of this meaning."""
    sign: str = ""
    """The sign by which SQL compares, of operators that are one."""
    ignoring_case: str = ""
    """The operator with the same meaning on a column that ignores case, empty if there is none."""


# --- SQL ----------------------------------------------------------------------------------------


def _by_sign(sign: str, up: bool | None) -> Callable[[Dialect, Column, Any, str], Sql]:
    """`up`: whether a literal between two values that the column can hold is rounded up; None: it
    is not rounded, so that no stored value equals it."""

    def write(dialect: Dialect, column: Column, value: Any, sql: str) -> Sql:
        operand = dialect.operand(column, sql, ordered=sign != "=")
        literal, params = dialect.literal(column, value, up=up)
        return f"{operand} {sign} {literal}", params

    return write


def _between(dialect: Dialect, column: Column, value: Any, sql: str) -> Sql:
    low, high = value
    low_literal, low_params = dialect.literal(column, low, up=True)
    high_literal, high_params = dialect.literal(column, high)
    operand = dialect.operand(column, sql, ordered=True)
    return f"{operand} BETWEEN {low_literal} AND {high_literal}", [*low_params, *high_params]


def _is(dialect: Dialect, column: Column, value: Any, sql: str) -> Sql:
    if value is None:
        return dialect.is_null(column, True, sql), []
    return dialect.is_bool(column, sql, value), []


def _distinct(dialect: Dialect, column: Column, value: Any, sql: str) -> Sql:
    if value is None:
        return dialect.is_null(column, False, sql), []
    literal, params = dialect.literal(column, value, up=None)
    operand = dialect.operand(column, sql, ordered=False)
    return dialect.is_distinct(column, sql, operand, literal), params


def _of_text(
    write: Callable[[Dialect, str, Any], Sql], *, ignore_case: bool = False
) -> Callable[[Dialect, Column, Any, str], Sql]:
    """From the text of a column and a value. With both folded, the operator that respects case
    serves the one that ignores it."""

    def written(dialect: Dialect, column: Column, value: Any, sql: str) -> Sql:
        text = dialect.as_text(column, sql)
        if ignore_case:
            return write(dialect, dialect.folded(text), dialect.folded_value(value))
        return write(dialect, text, value)

    return written


# --- the operators ------------------------------------------------------------------------------


_COMPARABLE = frozenset(Kind) - OPAQUE
_ORDERED = _COMPARABLE - {Kind.BOOL, Kind.INET}
_TEXT = frozenset({Kind.TEXT})
_ANY_CASE = " in any case"


def _distinct_from(value: Any) -> Judge:
    if value is None:
        return lambda found: found is not None
    return lambda found: found is None or found != value


def _within(value: Any) -> Judge:
    low, high = value
    return lambda found: low <= found <= high


def _folded(make: Callable[[str], Judge]) -> Callable[[str], Judge]:
    """The judge of an operator on text as one that ignores case."""

    def judge(value: str) -> Judge:
        test = make(patterns.fold(value))
        return lambda found: test(patterns.fold(found))

    return judge


def _order(
    name: str, sign: str, words: tuple[str, str], judge: Callable[[Any], Judge], *, up: bool
) -> Operator:
    return Operator(
        name=name,
        kinds=_ORDERED,
        in_policies=True,
        in_filters=(name,),
        judge=judge,
        words=words,
        sql=_by_sign(sign, up),
        sign=sign,
    )


def _textual(
    name: str,
    words: tuple[str, str],
    judge: Callable[[str], Judge],
    write: Callable[[Dialect, str, Any], Sql],
) -> tuple[Operator, Operator]:
    """An operator on text, and the one that ignores case."""
    ignoring = f"i{name}"
    respecting_case = Operator(
        name=name,
        kinds=_TEXT,
        in_policies=True,
        judge=judge,
        words=words,
        sql=_of_text(write),
        ignoring_case=ignoring,
    )
    ignoring_case = Operator(
        name=ignoring,
        kinds=_TEXT,
        in_policies=True,
        judge=_folded(judge),
        words=words,
        suffix=_ANY_CASE,
        sql=_of_text(write, ignore_case=True),
        ignoring_case=ignoring,
    )
    return respecting_case, ignoring_case


def _pattern(
    name: str,
    language: patterns.Language,
    words: tuple[str, str],
    sql: Callable[[Dialect, Column, Any, str], Sql] | None,
    ignoring_case: str,
) -> Operator:
    return Operator(
        name=name,
        kinds=_TEXT,
        form=Form.PATTERN,
        in_filters=(name,),
        judge=language.make,
        pattern=language,
        words=words,
        suffix=_ANY_CASE if name == ignoring_case else "",
        sql=sql,
        ignoring_case=ignoring_case,
    )


_EXACT = Operator(
    name="exact",
    kinds=_COMPARABLE,
    in_policies=True,
    in_filters=("eq",),
    denied_in_filters=("neq",),
    judge=lambda value: lambda found: found == value,
    words=("is", "is not"),
    sql=_by_sign("=", None),
    sign="=",
    ignoring_case="iexact",
)
_IEXACT = Operator(
    name="iexact",
    kinds=_TEXT,
    in_policies=True,
    judge=_folded(lambda value: lambda found: found == value),
    words=("is", "is not"),
    suffix=_ANY_CASE,
    sql=_of_text(lambda dialect, text, value: (f"{text} = %s", [value]), ignore_case=True),
    ignoring_case="iexact",
)
_IN = Operator(
    name="in",
    kinds=_COMPARABLE,
    form=Form.SET,
    in_policies=True,
    in_filters=("in",),
    judge=lambda members: lambda found: found in members,
    words=("is one of", "is none of"),
    sql=lambda dialect, column, value, sql: dialect.among(column, value, sql),
)
_RANGE = Operator(
    name="range",
    kinds=_ORDERED,
    form=Form.PAIR,
    in_policies=True,
    judge=_within,
    words=("is between", "is not between"),
    sql=_between,
)
_ISNULL = Operator(
    name="isnull",
    kinds=frozenset(Kind),
    form=Form.FLAG,
    in_policies=True,
    judge=lambda value: lambda found: (found is None) is value,
    sees_null=True,
    words=("is null", "is not null"),
    sql=lambda dialect, column, value, sql: (dialect.is_null(column, value, sql), []),
    ignoring_case="isnull",
)
_IS = Operator(
    name="is",
    kinds=frozenset({Kind.BOOL}),
    form=Form.TRUTH,
    in_filters=("is",),
    judge=lambda value: lambda found: found is value,
    sees_null=True,
    words=("is", "is not"),
    sql=_is,
    ignoring_case="is",
)
_ISDISTINCT = Operator(
    name="isdistinct",
    kinds=_COMPARABLE,
    form=Form.VALUE_OR_NULL,
    in_filters=("isdistinct",),
    judge=_distinct_from,
    sees_null=True,
    words=("differs from", "does not differ from"),
    sql=_distinct,
)

_ALL = (
    _EXACT,
    _IEXACT,
    _IN,
    _order(
        "gt",
        ">",
        ("is greater than", "is not greater than"),
        lambda value: lambda found: found > value,
        up=False,
    ),
    _order(
        "gte",
        ">=",
        ("is at least", "is not at least"),
        lambda value: lambda found: found >= value,
        up=True,
    ),
    _order(
        "lt",
        "<",
        ("is less than", "is not less than"),
        lambda value: lambda found: found < value,
        up=True,
    ),
    _order(
        "lte",
        "<=",
        ("is at most", "is not at most"),
        lambda value: lambda found: found <= value,
        up=False,
    ),
    _RANGE,
    _ISNULL,
    *_textual(
        "contains",
        ("contains", "does not contain"),
        lambda value: lambda found: value in found,
        lambda dialect, text, value: dialect.contains(text, value),
    ),
    *_textual(
        "startswith",
        ("starts with", "does not start with"),
        lambda value: lambda found: found.startswith(value),
        lambda dialect, text, value: dialect.startswith(text, value),
    ),
    *_textual(
        "endswith",
        ("ends with", "does not end with"),
        lambda value: lambda found: found.endswith(value),
        lambda dialect, text, value: dialect.endswith(text, value),
    ),
    _pattern(
        "like",
        patterns.LIKE,
        ("is like", "is not like"),
        _of_text(lambda dialect, text, value: dialect.like(text, value)),
        "ilike",
    ),
    _pattern(
        "ilike",
        patterns.ILIKE,
        ("is like", "is not like"),
        _of_text(lambda dialect, text, value: dialect.like(text, value), ignore_case=True),
        "ilike",
    ),
    # No database evaluates regular expressions as RE2 does.
    _pattern("match", patterns.REGEX, ("matches", "does not match"), None, "imatch"),
    _pattern("imatch", patterns.IREGEX, ("matches", "does not match"), None, "imatch"),
    _IS,
    _ISDISTINCT,
)

OPERATORS: dict[str, Operator] = {operator.name: operator for operator in _ALL}
"""By name in predicates."""

FILTER_WORDS: dict[str, tuple[Operator, bool]] = {
    word: (operator, denied)
    for operator in _ALL
    for denied, words in ((False, operator.in_filters), (True, operator.denied_in_filters))
    for word in words
}
"""By name in filters: the operator, and whether the name means its negation."""


def operator_of(name: str) -> Operator:
    """The operator of this name in predicates. Raises ValueError where there is none."""
    found = OPERATORS.get(name)
    if found is None:
        raise ValueError(f"unknown operator {name!r}")
    return found


def policy_operators(kind: Kind) -> frozenset[str]:
    """The operators that a policy may use on a column of this kind."""
    return frozenset(
        name
        for name, operator in OPERATORS.items()
        if operator.in_policies and kind in operator.kinds
    )
