"""A queue that serves many senders in turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.util.fair_queue import FairQueue


def drained(queue: FairQueue[int]) -> list[int]:
    return [queue.pop() for _ in range(len(queue))]


def test_a_quiet_sender_does_not_wait_for_a_noisy_one() -> None:
    queue: FairQueue[int] = FairQueue(100, 100)
    for number in range(50):
        queue.put("noisy", number)
    queue.put("quiet", 1_000)
    assert drained(queue)[:3] == [0, 1_000, 1]


def test_a_sender_has_its_share_and_no_more() -> None:
    queue: FairQueue[int] = FairQueue(100, 2)
    assert [queue.put("a", n) for n in range(3)] == [True, True, False]
    assert queue.put("b", 9)
    assert drained(queue) == [0, 9, 1]


def test_when_it_is_full_who_has_most_gives_way() -> None:
    queue: FairQueue[int] = FairQueue(4, 4)
    for number in range(4):
        queue.put("noisy", number)
    assert queue.put("quiet", 9)
    assert not queue.put("noisy", 4)
    assert sorted(drained(queue)) == [0, 1, 2, 9]


def test_nobody_gives_way_to_who_has_as_much() -> None:
    queue: FairQueue[int] = FairQueue(2, 2)
    assert queue.put("a", 1) and queue.put("b", 2)
    assert not queue.put("c", 3) and not queue.put("a", 4)
    assert drained(queue) == [1, 2]


def test_nothing_comes_out_of_an_empty_one() -> None:
    with pytest.raises(IndexError):
        FairQueue(1, 1).pop()


def test_what_is_discarded_does_not_come_out() -> None:
    queue: FairQueue[int] = FairQueue()
    for key, item in (("a", 1), ("a", 2), ("b", 3)):
        queue.put(key, item)
    queue.discard("a", 1)
    queue.discard("b", 3)
    queue.discard("b", 3)
    queue.discard("a", 9)
    assert drained(queue) == [2]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())), st.integers(1, 8))
def test_what_comes_out_of_one_sender_is_in_order(steps: list[tuple[str, bool]], each: int) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(1_000, each)
    taken: list[tuple[str, int]] = []
    for number, (key, pops) in enumerate(steps):
        if pops and len(queue):
            taken.append(queue.pop())
        else:
            queue.put(key, (key, number))
    taken += [queue.pop() for _ in range(len(queue))]
    for key in "abc":
        numbers = [number for sender, number in taken if sender == key]
        assert numbers == sorted(numbers)
    assert len(set(taken)) == len(taken)
