"""The predicate language: conditions on a row, as values.

Predicates are trees. They are parsed from policy JSON, Q objects or wire filters, bound to a
subject (each reference replaced by a plain value), and then evaluated on rows (`evaluate.py`) or
compiled to SQL (`sql/compile.py`). Both follow SQL's three-valued logic: a comparison with NULL is
unknown, and unknown is not true.

Pure: no Django, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from auth_rls.predicates.kinds import Kind


@dataclass(frozen=True, slots=True)
class Const:
    """A constant: True, False, or None for unknown."""

    value: bool | None


@dataclass(frozen=True, slots=True)
class All:
    """Kleene conjunction; true without parts."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Any_:
    """Kleene disjunction; false without parts."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Kleene negation."""

    part: Predicate


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of the subject: `$user.id`, `$user.<field>`, `$claims.<path>`, `$role`.

    `kind` is the kind of the column it is compared with; binding converts the value to it.
    """

    source: str  # "user", "claims" or "role"
    path: tuple[str, ...] = ()
    kind: Kind = Kind.TEXT

    def __str__(self) -> str:
        """As it is written in policies."""
        return "$" + ".".join((self.source, *self.path))


@dataclass(frozen=True, slots=True)
class Select:
    """The set of a column's values over the rows of another table that match `where`.

    NULLs are not in it. `kind` is the kind of the column it is compared with; if that is TEXT,
    each value becomes text after `prefix`.
    """

    model: str  # "app.Model"
    column: str
    where: Predicate
    prefix: str = ""
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Test:
    """One column compared. `value` is a canonical value of the column's kind (see kinds.py);
    a frozenset of them for "in", a pair for "range", a bool for "isnull"; before binding it may
    be a Ref, a Select, or a tuple holding Refs."""

    # Without this, pytest would collect the class, because of its name.
    __test__: ClassVar[bool] = False

    column: str
    op: str
    value: Any


@dataclass(frozen=True, slots=True)
class RefTest:
    """A comparison of a value of the subject, independent of the row: `{"$claims.aal": "aal2"}`.
    `value` is as in a Test, of the kind of `ref`, and no select. Binding turns it into a Const."""

    ref: Ref
    op: str
    value: Any


def has_refs(value: object) -> bool:
    """Whether a value of a Test, which is no Select, is or holds a Ref: binding replaces it."""
    return isinstance(value, Ref) or (
        isinstance(value, tuple) and any(isinstance(item, Ref) for item in value)
    )


Predicate: TypeAlias = Const | All | Any_ | Not | Test | RefTest

TRUE = Const(True)
FALSE = Const(False)
UNKNOWN = Const(None)


def tests(predicate: Predicate) -> Iterator[Test]:
    """Every comparison of a column, left to right; not those inside a select."""
    return (leaf for leaf in _leaves(predicate) if isinstance(leaf, Test))


def _leaves(predicate: Predicate) -> Iterator[Test | RefTest]:
    stack: list[Predicate] = [predicate]
    while stack:
        node = stack.pop()
        if isinstance(node, Test | RefTest):
            yield node
        elif isinstance(node, Not):
            stack.append(node.part)
        elif not isinstance(node, Const):
            stack.extend(reversed(node.parts))


def columns(predicate: Predicate) -> frozenset[str]:
    """The columns of the row itself that the predicate reads."""
    return frozenset(test.column for test in tests(predicate))


def selects(predicate: Predicate) -> Iterator[Select]:
    """Every select of the predicate, each before the selects inside its own `where`."""
    for test in tests(predicate):
        if isinstance(test.value, Select):
            yield test.value
            yield from selects(test.value.where)


def refs(predicate: Predicate) -> Iterator[Ref]:
    """Every reference to the subject, those inside selects included."""
    for test in _leaves(predicate):
        if isinstance(test, RefTest):
            yield test.ref
        if isinstance(test.value, Ref):
            yield test.value
        elif isinstance(test.value, Select):
            yield from refs(test.value.where)
        elif isinstance(test.value, tuple):
            yield from (item for item in test.value if isinstance(item, Ref))
