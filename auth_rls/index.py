"""Index keys: under which values of a row a predicate has to be looked at at all.

Pure: no Django, no I/O. It never evaluates a predicate.
"""

from __future__ import annotations

from auth_rls.predicate import All, Any_, Const, Not, Predicate, Ref, Select


def index_keys(predicate: Predicate) -> frozenset[tuple[str, object]] | None:
    """(column, value) pairs of which at least one holds on every row that the predicate is true
    of. None: there is no such set, every row must be looked at. Empty: no row matches."""
    if isinstance(predicate, Const):
        return None if predicate.value else frozenset()
    if isinstance(predicate, All):
        known = [keys for keys in map(index_keys, predicate.parts) if keys is not None]
        return min(known, key=len) if known else None
    if isinstance(predicate, Any_):
        union: set[tuple[str, object]] = set()
        for part in predicate.parts:
            keys = index_keys(part)
            if keys is None:
                return None
            union |= keys
        return frozenset(union)
    if isinstance(predicate, Not):
        return None
    if isinstance(predicate.value, Ref | Select | tuple):
        return None
    if predicate.op == "exact" or (predicate.op == "is" and predicate.value is not None):
        return frozenset({(predicate.column, predicate.value)})
    if predicate.op == "in":
        return frozenset((predicate.column, value) for value in predicate.value)
    return None
