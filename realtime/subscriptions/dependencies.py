"""What a verdict depends on: which changes may have altered what a subject sees of a table, and on
which rows two verdicts differ.

Pure. The client of a live subscription that resumes has the rows that it could see when it left;
the server computes those that it may see now. The two agree unless one of the changes in between
altered the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    All,
    Any_,
    Predicate,
    Select,
    Test,
    selects,
    tests,
)
from auth_rls.predicates.simplify import simplify
from realtime.event_log.event import DatabaseEvent

_Verdict = Callable[[Mapping[str, Any]], bool | None]


@dataclass(frozen=True, slots=True)
class Dependence:
    """Rows of a table that a verdict depends on: those on which `where` is true or unknown. Only
    their value of `column` counts, or every value if it is None."""

    table: str
    where: Predicate = TRUE
    column: str | None = None


@dataclass(frozen=True, slots=True)
class VerdictDependencies:
    """Everything that some verdicts of one subject depend on."""

    dependences: frozenset[Dependence]

    @property
    def tables(self) -> frozenset[str]:
        return frozenset(dependence.table for dependence in self.dependences)

    def touched_by(self, events: Iterable[DatabaseEvent]) -> bool:
        """Whether any of these changes may have altered a verdict."""
        by_table: dict[str, list[tuple[_Verdict, str | None]]] = {}
        for dependence in self.dependences:
            judge = matcher(dependence.where)
            by_table.setdefault(dependence.table, []).append((judge, dependence.column))
        return any(
            _alters(event, judge, column)
            for event in events
            for judge, column in by_table.get(event.relation.table, ())
        )


def of_select(select: Select, table_of: Callable[[str], str]) -> list[Dependence]:
    """The rows behind a select that is bound to its subject. `table_of` returns the table of a
    model's label.

    With a nested select, one row does not show whether it is chosen, so any change of either table
    counts.
    """
    inner = list(selects(select.where))
    where = TRUE if inner else select.where
    found = [Dependence(table_of(select.model), where, None if inner else select.column)]
    for nested in inner:
        whole = any(isinstance(test.value, Select) for test in tests(nested.where))
        found.append(Dependence(table_of(nested.model), TRUE if whole else nested.where))
    return found


def key_is(table: str, column: str, value: object) -> Dependence:
    """The rows of a table with this value."""
    return Dependence(table, Test(column, "exact", value))


def differing(one: Predicate, other: Predicate) -> Predicate:
    """A predicate that holds at least on every row where one of the two is true and the other is
    not.

    Parts that both share are left out: when a subject joins a team, the rows of that team are read
    and those of the subject's other teams are not.
    """
    one, other = simplify(one), simplify(other)
    if one == other:
        return FALSE
    if isinstance(one, Test) and isinstance(other, Test) and one.column == other.column:
        values, others = _values(one), _values(other)
        if values is not None and others is not None:
            return simplify(Test(one.column, "in", values ^ others))
    for kind in (Any_, All):
        parts, counterparts = _parts(one, kind), _parts(other, kind)
        shared = [part for part in parts if part in counterparts]
        if shared:
            rest = differing(
                kind(tuple(part for part in parts if part not in shared)),
                kind(tuple(part for part in counterparts if part not in shared)),
            )
            # In a conjunction both need the shared parts; in a disjunction these make both true.
            return rest if kind is Any_ else simplify(All((*shared, rest)))
    return simplify(Any_((one, other)))


def _parts(predicate: Predicate, kind: type[All] | type[Any_]) -> tuple[Predicate, ...]:
    return predicate.parts if isinstance(predicate, kind) else (predicate,)


def _values(test: Test) -> frozenset[object] | None:
    """The values that the column may have; None for a test with another operator."""
    if test.op == "exact":
        return frozenset((test.value,))
    return test.value if test.op == "in" and isinstance(test.value, frozenset) else None


def _alters(event: DatabaseEvent, judge: _Verdict, column: str | None) -> bool:
    if event.old is None and event.new is None:
        # The table was emptied.
        return True
    before = False if event.old is None else judge(event.old)
    after = False if event.new is None else judge(event.new)
    if before is False and after is False:
        return False
    if event.old is None or event.new is None or before is not after or before is None:
        return True
    if column is None:
        return event.old.raw != event.new.raw
    missing = object()
    return bool(event.old.get(column, missing) != event.new.get(column, missing))
