"""Predicates in plain English, for readers of a policy who did not write it.

The predicate is described as parsed, before it is bound to a subject. Nothing is evaluated.

Pure: no Django, no I/O.
"""

from __future__ import annotations

from datetime import date, datetime, time

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

# By operator, the words between column and value: affirmed, and denied.
_VERBS = {
    "exact": ("is", "is not"),
    "in": ("is one of", "is none of"),
    "gt": ("is greater than", "is not greater than"),
    "gte": ("is at least", "is not at least"),
    "lt": ("is less than", "is not less than"),
    "lte": ("is at most", "is not at most"),
    "range": ("is between", "is not between"),
    "contains": ("contains", "does not contain"),
    "startswith": ("starts with", "does not start with"),
    "endswith": ("ends with", "does not end with"),
    "like": ("is like", "is not like"),
    "match": ("matches", "does not match"),
    "is": ("is", "is not"),
    "isdistinct": ("differs from", "does not differ from"),
}


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
    if test.op == "isnull":
        return f"{subject} is {'null' if bool(test.value) is not denied else 'not null'}"
    op, suffix = test.op, ""
    if op not in _VERBS:
        op, suffix = op[1:], " in any case"
    verb = _VERBS[op][denied]
    if op == "range":
        low, high = test.value
        value = f"{describe_value(low)} and {describe_value(high)}"
    elif op == "in":
        value = _set(test.value)
    else:
        value = describe_value(test.value)
    return f"{subject} {verb} {value}{suffix}"


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
