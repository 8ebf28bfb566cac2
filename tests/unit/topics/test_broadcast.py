"""A passing broadcast is heard once, however often its batch comes."""

from __future__ import annotations

from realtime.topics.broadcast import Broadcast, PassingBatch, RecentMarks


def batch(*marks: str) -> PassingBatch:
    return PassingBatch(list(marks), [Broadcast("room", False, mark, b"1", 1) for mark in marks])


def fresh(recent: RecentMarks, now: float, *marks: str) -> list[str | None]:
    return [broadcast.event for broadcast in recent.fresh(batch(*marks), now).broadcasts]


def test_what_comes_again_is_left_out_and_the_order_stays() -> None:
    recent = RecentMarks(10.0)
    assert fresh(recent, 0.0, "b", "a") == ["b", "a"]
    assert fresh(recent, 1.0, "a", "c", "b", "c") == ["c"]
    assert fresh(recent, 9.0, "a") == []


def test_a_mark_is_forgotten_after_its_time() -> None:
    recent = RecentMarks(10.0)
    fresh(recent, 0.0, "a")
    fresh(recent, 8.0, "b")
    assert fresh(recent, 10.5, "a", "b") == ["a"]
