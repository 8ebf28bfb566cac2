"""A turn: one holder at a time, from whom any thread may take it."""

from __future__ import annotations

import threading

from realtime.handling.turn import Turn
from tests.support.waiting import PATIENCE_SECONDS


def test_a_second_holder_waits_until_the_first_one_has_given_it_back() -> None:
    turn, go_on = Turn(), threading.Event()
    assert turn.take("first", go_on)
    taken = threading.Event()

    def take() -> None:
        assert turn.take("second", go_on)
        taken.set()

    waiting = threading.Thread(target=take)
    waiting.start()
    turn.give_back("another")
    assert not taken.is_set()
    turn.give_back("first")
    assert taken.wait(PATIENCE_SECONDS)
    waiting.join()


def test_who_is_to_stop_does_not_get_it() -> None:
    turn, stopping = Turn(), threading.Event()
    assert turn.take("first", threading.Event())
    stopping.set()
    assert not turn.take("second", stopping)
    turn.give_back("second")
    turn.give_back("first")
    assert turn.take("third", threading.Event())
