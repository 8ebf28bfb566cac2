"""Predicates in plain English, for readers of a policy who did not write it.

The predicate is described as parsed, before it is bound to a subject. Nothing is evaluated.

Pure: no Django, no I/O.
"""

from __future__ import annotations

from datetime import date, datetime, time

from auth_rls.predicates.operators import Form, operator_of
from auth_rls.predicates.predicate import (
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

_SHOWN = 5
_LONGEST = 60


def describe(predicate: Predicate) -> str:
    """The predicate in words: 'owner_id is the user's id, or is_public is true'."""
    if isinstance(predicate, Const):
        return {True: "every row", False: "no row", None: "no row, since it is unknown"}[
            predicate.value
        ]
    return _words(predicate)


def _words(predicate: Predicate, *, inside: bool = False) -> str:
    """`inside`: it is a part of another connective and needs parentheses."""
    if isinstance(predicate, Const):
        return {True: "always", False: "never", None: "unknown"}[predicate.value]
    if isinstance(predicate, Test | RefTest):
        return _test(predicate, denied=False)
    if isinstance(predicate, Not):
        if isinstance(predicate.part, Test | RefTest):
            return _test(predicate.part, denied=True)
        return f"not ({_words(predicate.part)})"
    if not predicate.parts:
        return "always" if isinstance(predicate, All) else "never"
    if len(predicate.parts) == 1:
        return _words(predicate.parts[0], inside=inside)
    joined = (" and " if isinstance(predicate, All) else ", or ").join(
        _words(part, inside=True) for part in predicate.parts
    )
    return f"({joined})" if inside else joined


def _test(test: Test | RefTest, *, denied: bool) -> str:
    subject = _reference(test.ref) if isinstance(test, RefTest) else test.column
    operator = operator_of(test.op)
    if operator.form is Form.FLAG:
        return f"{subject} {operator.words[test.value is denied]}"
    if operator.form is Form.PAIR:
        low, high = test.value
        value = f"{describe_value(low)} and {describe_value(high)}"
    elif operator.form is Form.SET:
        value = _set(test.value)
    else:
        value = describe_value(test.value)
    return f"{subject} {operator.words[denied]} {value}{operator.suffix}"


def _set(value: object) -> str:
    if isinstance(value, Select):
        return _select(value)
    if isinstance(value, Ref):
        return _reference(value)
    if not isinstance(value, frozenset | tuple) or not value:
        return "nothing"
    items = list(value) if isinstance(value, tuple) else sorted(value, key=_order)
    shown = [describe_value(item) for item in items[:_SHOWN]]
    if len(items) > _SHOWN:
        return f"{', '.join(shown)} and {len(items) - _SHOWN} more"
    if len(shown) == 1:
        return shown[0]
    return f"{', '.join(shown[:-1])} or {shown[-1]}"


def _order(value: object) -> tuple[bool, object]:
    # Numbers by size, other values by their text. The values of one list have one kind.
    number = isinstance(value, int | float)
    return number, value if number else str(value)


def _select(select: Select) -> str:
    source = f"{select.column} in {select.model}"
    if select.prefix:
        source = f"{describe_value(select.prefix)} followed by {source}"
    if select.where == Const(True):
        return source
    return f"{source} where {_words(select.where, inside=isinstance(select.where, Any_))}"


def describe_value(value: object) -> str:
    """One value in words: text in quotes, NULL as null, a long text cut short."""
    if isinstance(value, Ref):
        return _reference(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"
        return f"“{text}”"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)


def _reference(ref: Ref) -> str:
    if ref.source == "role":
        return "the role"
    if ref.source == "user":
        return f"the user's {'.'.join(ref.path)}"
    return f"the token's {'.'.join(ref.path)}"
