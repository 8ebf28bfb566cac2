"""Read holds: what is still to be read."""

from __future__ import annotations

from realtime.event_log.read_holds import ReadHolds


def test_a_hold_that_lets_go_holds_nothing_until_it_moves() -> None:
    holds = ReadHolds()
    with holds.reading(5) as slow, holds.reading(9):
        assert holds.lowest == 6
        slow.let_go()
        assert holds.lowest == 10
        slow.move(7)
        assert holds.lowest == 8
    assert holds.lowest is None
