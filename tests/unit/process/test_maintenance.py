"""How often the log is pruned."""

from __future__ import annotations

from datetime import timedelta

from realtime.process.maintenance import PRUNE_SECONDS, prune_pause
from realtime.process.retention import Retention


def test_a_log_that_is_kept_for_days_is_pruned_at_the_usual_times() -> None:
    assert prune_pause(Retention(timedelta(hours=72))) == PRUNE_SECONDS


def test_a_short_retention_is_exceeded_by_a_part_of_itself_only() -> None:
    assert prune_pause(Retention(timedelta(minutes=2))) <= timedelta(minutes=2).total_seconds() / 2


def test_a_log_that_is_kept_to_a_size_is_pruned_more_often() -> None:
    assert prune_pause(Retention(size=10**9)) < PRUNE_SECONDS
    assert prune_pause(Retention(timedelta(minutes=1), 10**9)) == prune_pause(
        Retention(timedelta(minutes=1))
    )
