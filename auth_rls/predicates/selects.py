"""The selects in a predicate, and their replacement by the values behind them. Pure."""

from __future__ import annotations

from collections.abc import Callable

from auth_rls.predicates.predicate import All, Any_, Not, Predicate, Select, Test, tests
from auth_rls.predicates.simplify import simplify


def direct_selects(predicate: Predicate) -> tuple[Select, ...]:
    """Every distinct select of the predicate itself, without selects inside selects."""
    found = (test.value for test in tests(predicate) if isinstance(test.value, Select))
    return tuple(dict.fromkeys(found))


def resolve(predicate: Predicate, values_of: Callable[[Select], frozenset[object]]) -> Predicate:
    """The predicate with each select replaced by its values, in canonical form (see `simplify`)."""
    if not direct_selects(predicate):
        return predicate
    return simplify(_resolved(predicate, values_of))


def _resolved(predicate: Predicate, values_of: Callable[[Select], frozenset[object]]) -> Predicate:
    if isinstance(predicate, Not):
        return Not(_resolved(predicate.part, values_of))
    if isinstance(predicate, All | Any_):
        return type(predicate)(tuple(_resolved(part, values_of) for part in predicate.parts))
    if isinstance(predicate, Test) and isinstance(predicate.value, Select):
        return Test(predicate.column, predicate.op, values_of(predicate.value))
    return predicate
