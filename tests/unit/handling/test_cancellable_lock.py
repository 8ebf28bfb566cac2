"""A lock: one holder at a time, from whom any thread may take it."""

from __future__ import annotations

import threading

from realtime.handling.cancellable_lock import CancellableLock
from tests.support.waiting import PATIENCE_SECONDS


def test_a_second_holder_waits_until_the_first_one_has_given_it_back() -> None:
    lock, go_on = CancellableLock(), threading.Event()
    assert lock.acquire("first", go_on)
    taken = threading.Event()

    def take() -> None:
        assert lock.acquire("second", go_on)
        taken.set()

    waiting = threading.Thread(target=take)
    waiting.start()
    lock.release("another")
    assert not taken.is_set()
    lock.release("first")
    assert taken.wait(PATIENCE_SECONDS)
    waiting.join()


def test_who_is_to_stop_does_not_get_it() -> None:
    lock, stopping = CancellableLock(), threading.Event()
    assert lock.acquire("first", threading.Event())
    stopping.set()
    assert not lock.acquire("second", stopping)
    lock.release("second")
    lock.release("first")
    assert lock.acquire("third", threading.Event())
