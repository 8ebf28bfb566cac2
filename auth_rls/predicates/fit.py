"""Fit: how the type that a column has in its database suits the kind of its field.

Pure: no Django, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from auth_rls.predicates.operators import operator_of
from auth_rls.predicates.predicate import (
    FALSE,
    Any_,
    Not,
    Predicate,
    Ref,
    Select,
    Test,
)


@dataclass(frozen=True, slots=True)
class Fit:
    """`problem`: why the column may not be compared, empty where it may. `ignores_case`: to the
    database two texts that differ in case are one. `padded`: spaces at the end count for
    nothing."""

    problem: str = ""
    ignores_case: bool = False
    padded: bool = False


EXACT = Fit()


def ignoring_case(test: Test) -> Predicate:
    """The comparison as a column makes it that ignores case. Raises ValueError for one that has no
    such form; the text says which have."""
    op, value = test.op, test.value
    if ignoring := operator_of(op).ignoring_case:
        return Test(test.column, ignoring, value)
    if op == "in" and not isinstance(value, Ref | Select):
        items: tuple[object, ...] = tuple(value)
        found = tuple(Test(test.column, "iexact", item) for item in sorted(items, key=repr))
        return Any_(found) if found else FALSE
    if op == "isdistinct" and value is None:
        return test
    if op == "isdistinct":
        missing = Test(test.column, "isnull", True)
        return Any_((missing, Not(Test(test.column, "iexact", value))))
    raise ValueError(
        "the column ignores case, so it takes equality, lists of values, parts of a text and "
        "isnull alone"
    )
