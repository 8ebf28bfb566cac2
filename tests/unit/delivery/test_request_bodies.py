"""A body that takes long loses its connection, and an address has only so much of its bodies in
memory."""

from __future__ import annotations

import heapq
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings

from realtime.delivery.request_bodies import limit_bodies_of


class Loop:
    """An event loop whose time is moved by hand."""

    def __init__(self) -> None:
        self._now = 0.0
        self._numbers = count()
        self._timers: list[tuple[float, int, Callable[[], None], list[bool]]] = []

    def time(self) -> float:
        return self._now

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        cancelled: list[bool] = []
        heapq.heappush(self._timers, (self._now + seconds, next(self._numbers), call, cancelled))
        return SimpleNamespace(cancel=lambda: cancelled.append(True))

    def go_on(self, seconds: float) -> None:
        until = self._now + seconds
        while self._timers and self._timers[0][0] <= until:
            self._now, _, call, cancelled = heapq.heappop(self._timers)
            if not cancelled:
                call()
        self._now = until


class Http:
    """The part of uvicorn's HTTP protocols that is used, in the middle of a request."""

    def __init__(self, loop: Loop, address: str = "10.0.0.1") -> None:
        self.loop = loop
        self.client = ("127.0.0.1", 1)
        self.closed = False
        self.flow = SimpleNamespace(read_paused=False)
        self.transport = SimpleNamespace(abort=self._abort, is_closing=lambda: self.closed)
        self.cycle: Any = SimpleNamespace(
            body=bytearray(),
            more_body=True,
            response_complete=False,
            scope={"client": (address, 1)},
        )

    def _abort(self) -> None:
        self.closed = True

    def data_received(self, data: bytes) -> None:
        self.cycle.body += data

    def on_response_complete(self) -> None:
        """A request that came in the same packet begins."""
        self.cycle = SimpleNamespace(**{**vars(self.cycle), "body": bytearray(b"x")})

    def end_body(self) -> None:
        self.cycle.more_body = False
        self.data_received(b"x")


@pytest.fixture
def limited() -> type[Http]:
    class Limited(Http):
        pass

    limit_bodies_of(Limited, address_bytes=100_000)
    return Limited


def test_a_body_that_comes_too_slowly_is_closed_and_one_that_comes_steadily_is_not(
    limited: type[Http],
) -> None:
    loop = Loop()
    dribbling, steady = limited(loop), limited(loop)
    for _ in range(100):
        dribbling.data_received(b"x")
        steady.data_received(b"x" * 500)
        loop.go_on(1)
    assert dribbling.closed and not steady.closed


def test_a_body_that_stops_coming_is_closed_however_much_has_come(limited: type[Http]) -> None:
    loop = Loop()
    one = limited(loop)
    one.data_received(b"x" * 100_000)
    loop.go_on(29)
    assert not one.closed
    loop.go_on(10)
    assert one.closed


def test_a_complete_body_and_one_that_is_not_read_are_left_alone(limited: type[Http]) -> None:
    loop = Loop()
    complete, unread = limited(loop), limited(loop)
    for one in (complete, unread):
        one.data_received(b"x")
    complete.end_body()
    unread.flow.read_paused = True
    loop.go_on(1_000)
    assert not complete.closed and not unread.closed
    unread.flow.read_paused = False
    loop.go_on(100)
    assert unread.closed


def test_the_bodies_of_an_address_are_bounded_together_and_small_ones_stay(
    limited: type[Http],
) -> None:
    loop = Loop()
    small, other = limited(loop), limited(loop, "10.0.0.2")
    large = [limited(loop) for _ in range(6)]
    for one in (small, *large, other):
        one.data_received(b"x" * 1_000)
    for one in (*large, other):
        one.data_received(b"x" * 29_000)
    assert sum(not one.closed for one in large) == 3
    small.data_received(b"x" * 1_000)
    assert not small.closed and not other.closed
    # What is complete makes room.
    for one in large:
        if not one.closed:
            one.end_body()
    last = limited(loop)
    last.data_received(b"x" * 90_000)
    assert not last.closed


def test_slow_bodies_count_however_little_has_come_of_them(limited: type[Http]) -> None:
    loop = Loop()
    many = [limited(loop) for _ in range(20)]
    for one in many:
        one.data_received(b"x" * 10_000)
    assert not any(one.closed for one in many)
    loop.go_on(10)
    assert 0 < sum(not one.closed for one in many) <= 6


@override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=20_000)
def test_what_django_has_on_disk_does_not_count(limited: type[Http]) -> None:
    loop = Loop()
    many = [limited(loop) for _ in range(10)]
    for one in many:
        one.data_received(b"x" * 90_000)
    assert not any(one.closed for one in many)


def test_a_body_that_began_behind_another_request_and_stops_is_closed(limited: type[Http]) -> None:
    loop = Loop()
    one = limited(loop)
    one.on_response_complete()
    loop.go_on(40)
    assert one.closed


def test_the_log_says_which_body_was_cut_off_and_not_each_of_a_flood(
    limited: type[Http], caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop()
    connections = [limited(loop, f"10.0.0.{number}") for number in range(20)]
    for slow in connections:
        slow.cycle.scope["path"] = "/upload"
        slow.data_received(b"x")
    loop.go_on(60)
    said = [record.getMessage() for record in caplog.records]
    assert 0 < len(said) < 20
    assert "10.0.0.0 to /upload was cut off after 1 bytes: it came too slowly" in said[0]


def test_a_server_can_load_its_protocol_before_django_is_set_up() -> None:
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-c", "import realtime.server"], env=env, check=True)
