"""Binding: a predicate's references replaced by one subject's values.

A value that the subject does not have, or that is no value of the column's kind, makes its
comparison unknown, as NULL does: a missing value grants no access.

Pure: no Django, no I/O. The caller passes functions for the subject's values and for sets.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any, Final

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.kinds import Kind, from_python
from auth_rls.predicates.predicate import (
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
)


class Missing(enum.Enum):
    """What `value_of` returns where the subject has no such value."""

    MISSING = enum.auto()


MISSING: Final = Missing.MISSING

ValueOf = Callable[[Ref], object]
SetOf = Callable[[Select], Iterable[Any]]


def bind(predicate: Predicate, value_of: ValueOf, set_of: SetOf | None = None) -> Predicate:
    """The predicate for one subject: without Ref, and without Select when `set_of` is given.

    `value_of` returns the Python value of a reference, such as the attribute of a user or a token's
    claim; None and MISSING are both NULL. `set_of` returns the values of a select's column, in that
    column's own kind; the select's `where` is bound already. NULLs among them are skipped, and the
    select's prefix is added here.
    """
    if isinstance(predicate, Const):
        return predicate
    if isinstance(predicate, Not):
        return Not(bind(predicate.part, value_of, set_of))
    if isinstance(predicate, All):
        return All(tuple(bind(part, value_of, set_of) for part in predicate.parts))
    if isinstance(predicate, Any_):
        return Any_(tuple(bind(part, value_of, set_of) for part in predicate.parts))
    if isinstance(predicate, RefTest):
        return Const(_decided(predicate, value_of))
    column, op, value = predicate.column, predicate.op, predicate.value
    if isinstance(value, Select):
        return Test(column, op, _select(value, value_of, set_of))
    if isinstance(value, Ref):
        if op == "in":
            return _in_list(column, value, value_of(value))
        found = _scalar(value, value_of)
        return UNKNOWN if found is None else Test(column, op, found)
    if isinstance(value, tuple):
        return _tuple(column, op, value, value_of)
    return predicate


def _decided(test: RefTest, value_of: ValueOf) -> bool | None:
    found = value_of(test.ref)
    if test.op == "isnull":
        return (found is MISSING or found is None) is test.value
    compared = bind(Test("", test.op, test.value), value_of)
    return matcher(compared)({"": _canonical(test.ref.kind, found)})


def member(select: Select, value: object) -> object:
    """The form in which one value (not NULL) of the select's column is compared with the outer
    column: text after the prefix if the outer column is text, else the value itself.
    """
    if select.kind is Kind.TEXT:
        return f"{select.prefix}{value}"
    return value


def _select(select: Select, value_of: ValueOf, set_of: SetOf | None) -> Select | frozenset[object]:
    where = bind(select.where, value_of, set_of)
    bound = Select(select.model, select.column, where, select.prefix, select.kind)
    if set_of is None:
        return bound
    return frozenset(member(bound, value) for value in set_of(bound) if value is not None)


def _tuple(column: str, op: str, items: tuple[Any, ...], value_of: ValueOf) -> Predicate:
    found = [_scalar(item, value_of) if isinstance(item, Ref) else item for item in items]
    if op == "in":
        return _in(column, found)
    if None not in found:
        return Test(column, op, tuple(found))
    # BETWEEN is two comparisons: with one bound unknown, the other can still be false.
    low, high = found
    return All(
        (
            UNKNOWN if low is None else Test(column, "gte", low),
            UNKNOWN if high is None else Test(column, "lte", high),
        )
    )


def _in(column: str, items: Iterable[object]) -> Predicate:
    """As in SQL: IN a list that holds NULL is true or unknown, never false."""
    values = frozenset(items)
    known = Test(column, "in", values - {None})
    return Any_((known, UNKNOWN)) if None in values else known


def _in_list(column: str, ref: Ref, value: object) -> Predicate:
    if not isinstance(value, list | tuple | set | frozenset):
        return UNKNOWN
    return _in(column, [_canonical(ref.kind, item) for item in value])


def _scalar(ref: Ref, value_of: ValueOf) -> object:
    return _canonical(ref.kind, value_of(ref))


def _canonical(kind: Kind, value: object) -> object:
    """The value in its canonical form; None if it is missing or no value of that kind."""
    if value is MISSING:
        return None
    try:
        return from_python(kind, value)
    except (ValueError, OverflowError, ArithmeticError):
        return None
