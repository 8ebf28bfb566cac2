"""The peak of a figure over a window of time."""

from __future__ import annotations

from realtime.process.loop_monitor import Peak


def test_a_peak_is_told_for_a_window_and_then_forgotten() -> None:
    peak = Peak(window=30)
    peak.add(5.0, now=0)
    peak.add(1.0, now=20)
    assert peak.at(29) == 5.0
    assert peak.at(31) == 5.0
    peak.add(2.0, now=35)
    assert peak.at(62) == 2.0
    assert peak.at(500) == 0.0
