"""A flood is bounded, kind by kind, and what was left out is counted."""

from __future__ import annotations

from auth_rls.access.record_limit import RecordLimit


def test_so_many_are_admitted_in_a_period_and_no_more() -> None:
    allowance = RecordLimit(2, 60)
    assert [allowance.admit("denied", now) for now in (0, 1, 2, 59.9)] == [0, 0, None, None]


def test_the_next_period_begins_with_the_count_of_what_was_left_out() -> None:
    allowance = RecordLimit(1, 60)
    assert [allowance.admit("denied", now) for now in (0, 1, 2, 60, 60, 120)] == [
        0,
        None,
        None,
        2,
        None,
        1,
    ]


def test_one_kind_takes_nothing_from_another() -> None:
    allowance = RecordLimit(1, 60)
    assert allowance.admit("denied", 0) == 0 and allowance.admit("denied", 0) is None
    assert allowance.admit("bypassed", 0) == 0
