"""The table of a long run as it was at a position that somebody holds."""

from __future__ import annotations

from benchmarks.soak.ledger import Change, Traits
from benchmarks.soak.table import Table

PUBLIC, PRIVATE = Traits(1, True, 0), Traits(1, False, 0)


def everything(traits: Traits) -> bool:
    return True


def public(traits: Traits) -> bool:
    return traits.public


def test_the_rows_are_those_of_the_position_that_is_asked_for() -> None:
    table = Table()
    table.hold("me", 0)
    table.changed(1, Change("INSERT", 7, "a"), PUBLIC)
    table.changed(2, Change("UPDATE", 7, "b"), PUBLIC)
    table.changed(3, Change("DELETE", 7, None), PUBLIC)
    assert [table.at(seq, everything) for seq in range(4)] == [{}, {7: "a"}, {7: "b"}, {}]


def test_a_row_that_ceases_to_be_seen_is_not_in_the_set() -> None:
    table = Table()
    table.hold("me", 0)
    table.changed(1, Change("INSERT", 7, "a"), PUBLIC)
    table.changed(2, Change("UPDATE", 7, "b"), PRIVATE)
    assert table.at(1, public) == {7: "a"} and table.at(2, public) == {}


def test_the_oldest_hold_decides_what_is_kept() -> None:
    table = Table()
    table.hold("old", 1)
    table.hold("new", 2)
    for seq in (1, 2, 3):
        table.changed(seq, Change("INSERT", seq, "a"), PUBLIC)
    assert set(table.at(1, everything)) == {1}
    table.release("old")
    table.changed(4, Change("INSERT", 4, "a"), PUBLIC)
    assert set(table.at(2, everything)) == {1, 2}
    assert set(table.at(4, everything)) == {1, 2, 3, 4}
