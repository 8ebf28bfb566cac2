"""Equal values become one object."""

from __future__ import annotations

from realtime.protocol.join import Binding
from realtime.util.interned import interned


def test_equal_values_are_one_object_and_others_are_not() -> None:
    first, second = Binding(1, table="t"), Binding(1, table="t")
    assert first is not second
    assert interned(first) is interned(second)
    assert interned(Binding(1, table="u")) == Binding(1, table="u")


def test_a_value_that_was_given_long_ago_is_not_kept() -> None:
    first = interned(Binding(1, table="long ago"))
    for number in range(5_000):
        interned((number,))
    assert interned(Binding(1, table="long ago")) is not first
