"""Evaluation: a bound predicate on one row, in SQL's three-valued logic.

`matcher` turns a predicate into nested functions once, so that a row costs only its comparisons.
The result must agree with the SQL of `sql/compile.py` on every row; a differential test compares
them.

The cost of a client's filter is charged to a `Meter` before the work is done. A pattern is compiled
when it is first matched, so a filter that is never evaluated costs nothing.

Pure: no Django, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from auth_rls.predicates.operators import Form, Judge, operator_of
from auth_rls.predicates.patterns import Language, Pattern
from auth_rls.predicates.predicate import (
    All,
    Any_,
    Const,
    Not,
    Predicate,
    RefTest,
    Select,
    Test,
    has_refs,
)

Matcher = Callable[[Mapping[str, object]], "bool | None"]
# The current values behind a select.
MembersOf = Callable[[Select], Collection[object]]

_MISSING: Any = object()


class TooCostly(Exception):
    """A predicate would cost more on a row than is left on its meter."""


class Meter:
    """How much evaluation may still cost, in steps of `Pattern.steps`; a step takes a few
    nanoseconds. A matcher charges work before it does it, and raises TooCostly if too little is
    left."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


def matcher(
    predicate: Predicate, members_of: MembersOf | None = None, meter: Meter | None = None
) -> Matcher:
    """A function from a row (column to canonical value) to true, false or None for unknown.

    A column that is None is NULL. An absent column makes every comparison with it unknown, even
    "is it NULL". `members_of` is called once for each select; the collections that it returns may
    change while the function is used. With `meter`, the cost of patterns is charged to it, and the
    function raises TooCostly. Raises ValueError for a predicate that is not bound.
    """
    if isinstance(predicate, Const):
        value = predicate.value
        return lambda row: value
    if isinstance(predicate, Not):
        return _not(matcher(predicate.part, members_of, meter))
    if isinstance(predicate, All | Any_):
        parts = tuple(matcher(part, members_of, meter) for part in predicate.parts)
        return _all(parts) if isinstance(predicate, All) else _any(parts)
    if isinstance(predicate, RefTest):
        raise ValueError("a comparison of a reference is not bound to a subject")
    if isinstance(predicate.value, Select) and members_of is not None:
        return _among(predicate.column, members_of(predicate.value))
    return _test(predicate, meter)


def _not(part: Matcher) -> Matcher:
    def match(row: Mapping[str, object]) -> bool | None:
        verdict = part(row)
        return None if verdict is None else not verdict

    return match


def _all(parts: tuple[Matcher, ...]) -> Matcher:
    def match(row: Mapping[str, object]) -> bool | None:
        result: bool | None = True
        for part in parts:
            verdict = part(row)
            if verdict is False:
                return False
            if verdict is None:
                result = None
        return result

    return match


def _any(parts: tuple[Matcher, ...]) -> Matcher:
    def match(row: Mapping[str, object]) -> bool | None:
        result: bool | None = False
        for part in parts:
            verdict = part(row)
            if verdict:
                return True
            if verdict is None:
                result = None
        return result

    return match


def _test(test: Test, meter: Meter | None) -> Matcher:
    column, op, value = test.column, test.op, test.value
    if isinstance(value, Select) or has_refs(value):
        raise ValueError(f"{column}__{op} is not bound to a subject")
    operator = operator_of(op)
    if operator.pattern is not None:
        return _pattern(column, operator.pattern, value, meter)
    if operator.form is Form.SET and not value:
        # SQL: even NULL is not in the empty set.
        return lambda row: False
    judge = operator.judge(value)
    return _deciding_null(column, judge) if operator.sees_null else _unknown_for_null(column, judge)


def _unknown_for_null(column: str, judge: Judge) -> Matcher:
    """A test that is unknown for NULL."""

    def match(row: Mapping[str, object]) -> bool | None:
        found = row.get(column)
        return None if found is None else judge(found)

    return match


def _deciding_null(column: str, judge: Judge) -> Matcher:
    """A test that decides about NULL too."""

    def match(row: Mapping[str, object]) -> bool | None:
        found = row.get(column, _MISSING)
        return None if found is _MISSING else judge(found)

    return match


def _among(column: str, members: Collection[object]) -> Matcher:
    """Membership in a set that may change."""

    def match(row: Mapping[str, object]) -> bool | None:
        if not members:
            # SQL: even NULL is not in the empty set.
            return False
        found = row.get(column)
        return None if found is None else found in members

    return match


def _pattern(column: str, language: Language, value: str, meter: Meter | None) -> Matcher:
    # Compiled when a row is first put to it: many filters never meet one.
    pattern: Pattern | None = None

    def match(row: Mapping[str, Any]) -> bool | None:
        nonlocal pattern
        found = row.get(column)
        if found is None:
            return None
        if pattern is None:
            pattern = language.make(value)
        if meter is not None:
            left = meter.left - pattern.steps(found)
            if left < 0:
                raise TooCostly
            meter.left = left
        return pattern.test(found)

    return match
