"""A small set behaves as an ordered set does, whether it has no item, one or several."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auth_rls.few import Few, added, items, removed

# Tuples, since equal ones need not be the same object.
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 4)))


@given(STEPS)
def test_it_has_what_an_ordered_set_has(steps: list[tuple[bool, int]]) -> None:
    few: Few[tuple[int, str]] = None
    expected: dict[tuple[int, str], None] = {}
    for adds, number in steps:
        item = (number, "item")
        if adds:
            few = added(few, item)
            expected[item] = None
        else:
            few = removed(few, item)
            expected.pop(item, None)
        assert list(items(few)) == list(expected)
        assert all(each in items(few) for each in expected)
        assert (few is None) is (not expected)
