"""A small ordered set in an attribute of its owner: nothing, the one item itself, or a dict.

Thousands of subscriptions have one item of a kind each: one group under a value, one channel of an
audience. A set of its own for each takes more memory than the items, and another access to memory
for each change that is matched.

Pure. Items are hashable, and neither None nor `Several`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias, TypeVar, Union

T = TypeVar("T")


class Several(dict[T, None]):
    """Two items or more, in the order in which they were added."""

    __slots__ = ()


Few: TypeAlias = Union[T, "Several[T]", None]


def added(few: Few[T], item: T) -> Few[T]:
    """The set with this item, last if it is new. May change the set that was given."""
    if few is None:
        return item
    if isinstance(few, Several):
        few[item] = None
        return few
    return few if few is item or few == item else Several({few: None, item: None})


def removed(few: Few[T], item: T) -> Few[T]:
    """The set without this item, if it was in it. May change the set that was given."""
    if isinstance(few, Several):
        few.pop(item, None)
        return next(iter(few)) if len(few) == 1 else few
    return None if few is item or few == item else few


def items(few: Few[T]) -> Collection[T]:
    """The items, in the order in which they were added."""
    if few is None:
        return ()
    return few if isinstance(few, Several) else (few,)
