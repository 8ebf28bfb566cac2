"""Simplification: a canonical form for predicates that mean the same.

Subscriptions with equal forms share one evaluation. The form agrees with the original on every row,
in all three truth values.

Pure: no Django, no I/O.
"""

from __future__ import annotations

from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    All,
    Any_,
    Const,
    Not,
    Predicate,
    RefTest,
    Test,
)


def simplify(predicate: Predicate) -> Predicate:
    """An equivalent predicate in canonical form: constants folded, nested connectives flattened,
    repetitions dropped, parts in a fixed order. Predicates that differ only in these become equal,
    with equal hashes."""
    if isinstance(predicate, Const):
        return predicate
    if isinstance(predicate, Not):
        part = simplify(predicate.part)
        if isinstance(part, Const):
            return Const(None if part.value is None else not part.value)
        return part.part if isinstance(part, Not) else Not(part)
    if isinstance(predicate, All):
        return _flatten(predicate, All, neutral=TRUE, final=FALSE)
    if isinstance(predicate, Any_):
        return _flatten(predicate, Any_, neutral=FALSE, final=TRUE)
    if (
        isinstance(predicate, Test)
        and predicate.op == "in"
        and isinstance(predicate.value, frozenset)
    ):
        if not predicate.value:
            return FALSE
        if len(predicate.value) == 1:
            (only,) = predicate.value
            return Test(predicate.column, "exact", only)
    return predicate


def _flatten(
    node: All | Any_, kind: type[All] | type[Any_], neutral: Const, final: Const
) -> Predicate:
    parts: dict[Predicate, None] = {}  # a set that keeps its order
    for child in node.parts:
        part = simplify(child)
        if part == final:
            return final
        if isinstance(part, kind):
            parts.update(dict.fromkeys(part.parts))
        elif part != neutral:
            parts[part] = None
    if not parts:
        return neutral
    if len(parts) == 1:
        return next(iter(parts))
    return kind(tuple(sorted(parts, key=_sort_key)))


def _sort_key(predicate: Predicate) -> tuple[str, ...]:
    """The sort key of a part among its siblings; of a long list only the least value counts."""
    if isinstance(predicate, Test):
        value = predicate.value
        if isinstance(value, frozenset):
            value = (len(value), min(map(repr, value), default=""))
        return "test", predicate.column, predicate.op, repr(value)
    if isinstance(predicate, RefTest):
        ref = predicate.ref
        return "reference", ref.source, *ref.path, predicate.op, repr(predicate.value)
    if isinstance(predicate, Not):
        return "tnot", *_sort_key(predicate.part)
    if isinstance(predicate, Const):
        return ("const",)
    return type(predicate).__name__.lower(), *(
        " ".join(_sort_key(part)) for part in predicate.parts
    )
