"""What a counter grows by each second, batch and event, from windows of time."""

from __future__ import annotations

import pytest

from benchmarks.windows import Window, share


def window(seconds: float, batches: float, events: float) -> Window:
    """What would be seen if a second cost 3, a batch 5 and an event 0.5."""
    return Window(seconds, batches, events, {"us": 3 * seconds + 5 * batches + 0.5 * events})


def test_a_second_a_batch_and_an_event_are_told_apart() -> None:
    found = share("us", window(5, 5, 5), window(6, 100, 100), window(4, 90, 1_800))
    assert (found.second, found.batch, found.event) == pytest.approx((3, 5, 0.5))


def test_windows_that_differ_only_in_length_say_nothing() -> None:
    with pytest.raises(ValueError, match="the same batches"):
        share("us", window(5, 50, 100), window(10, 100, 200), window(4, 40, 80))
