"""How much of a log fits into a size, by samples."""

from __future__ import annotations

import pytest

from realtime.event_log.size import last_beyond, positions


def test_positions_are_spread_evenly_and_all_are_taken_of_few() -> None:
    assert positions(5, 8) == [5, 6, 7, 8]
    assert positions(1, 1_000, 4) == [126, 376, 626, 876]
    assert positions(7, 7) == [7]


def test_nothing_goes_while_everything_fits() -> None:
    assert last_beyond([(1, 10), (2, 10)], 1, 2, 20) is None
    assert last_beyond([], 1, 2, 0) is None


@pytest.mark.parametrize("most", [0, 95, 500, 999])
def test_of_equal_entries_as_many_stay_as_fit(most: int) -> None:
    samples = [(seq, 10) for seq in range(1, 101)]
    assert last_beyond(samples, 1, 100, most) == 100 - most // 10
    # Also where few of them are measured.
    assert last_beyond([(26, 10), (76, 10)], 1, 100, most) == 100 - most // 10


def test_large_entries_go_before_small_ones_that_are_newer() -> None:
    samples = [(seq, 1_000 if seq <= 50 else 10) for seq in range(1, 101)]
    assert last_beyond(samples, 1, 100, 500) == 50
    assert last_beyond(samples, 1, 100, 10_500) == 40


def test_entries_that_are_gone_are_measured_by_their_neighbours() -> None:
    assert last_beyond([(90, 10), (95, 10)], 1, 100, 100) == 90
