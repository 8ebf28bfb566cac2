"""Q objects as policy JSON, so that policies in code and in the admin have one language.

Owns the translation only; the parser checks the names in the result. A Q object is written as in a
queryset filter on the model's own columns, with two additions: the strings
"$user.id", "$user.<field>", "$claims.<path>" and "$role" stand for the subject's values (a
literal string that begins with $ is written $$...), and `select` gives the set behind `__in`.

One thing differs from a queryset: `~Q(score=1)` follows SQL, so it is not true if score is NULL.
Write `~Q(score=1) | Q(score=None)` to include those rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.utils.duration import duration_iso_string


def select(column: str, from_: str, where: Q | bool = True, *, prefix: str = "") -> dict[str, Any]:
    """The values of `column` over the rows of `from_` ("app.Model") that match `where`.

    For use with `__in`: `Q(team__in=select("team", "zoo.Member", Q(user="$user.id")))`.
    `prefix` is put before every value, which then is text. Raises ValueError as `to_json` does.
    """
    written: dict[str, Any] = {"select": column, "from": from_, "where": to_json(where)}
    if prefix:
        written["prefix"] = prefix
    return written


def to_json(predicate: Q | bool) -> Any:
    """The policy JSON that means the same as `predicate`.

    Raises ValueError for what has no policy form: expressions such as F() and Exists(), XOR,
    querysets and model instances.
    """
    if isinstance(predicate, bool):
        return predicate
    if not isinstance(predicate, Q):
        raise ValueError(f"expected a Q object, True or False, not {predicate!r}")
    if not predicate.children:
        # Q() filters nothing, and a queryset takes its negation for Q() too.
        return True
    parts = [_child(child) for child in predicate.children]
    if predicate.connector == Q.AND:
        written: Any = parts[0] if len(parts) == 1 else {"all": parts}
    elif predicate.connector == Q.OR:
        written = parts[0] if len(parts) == 1 else {"any": parts}
    else:
        raise ValueError("Q objects joined by ^ have no policy form; write them with & and |")
    return {"not": written} if predicate.negated else written


def _child(child: Any) -> Any:
    if isinstance(child, Q):
        return to_json(child)
    if not isinstance(child, tuple):
        raise ValueError(f"{child!r} is an expression; policies compare columns with values only")
    lookup, value = child
    if value is None and "__" not in lookup:
        return {f"{lookup}__isnull": True}
    return {lookup: _value(lookup, value)}


def _value(lookup: str, value: Any) -> Any:
    match value:
        case Enum():  # Django's choices among them; before str and int, which those also are
            return _value(lookup, value.value)
        case None | bool() | int() | float() | str():
            return value
        case Decimal() | UUID() | IPv4Address() | IPv6Address():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return duration_iso_string(value)
        case Mapping():
            return {key: _value(lookup, item) for key, item in value.items()}
        case set() | frozenset():
            # Sets have no order; the JSON of one policy should not change between processes.
            return sorted((_value(lookup, item) for item in value), key=repr)
        case list() | tuple() | range():
            return [_value(lookup, item) for item in value]
    raise ValueError(
        f"{lookup}: {type(value).__name__} has no policy form; use a plain value, a list, "
        'a reference such as "$user.id" or auth_rls.select(...)'
    )
