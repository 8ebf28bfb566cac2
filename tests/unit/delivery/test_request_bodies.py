"""A body that takes long loses its connection, and an address has only so much of its bodies in
memory."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings

from realtime.delivery.request_bodies import limit_bodies_of

SECONDS = 0.02
LOOK_SECONDS = 0.01


class Http:
    """The part of uvicorn's HTTP protocols that is used, in the middle of a request."""

    def __init__(self, address: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.client = ("127.0.0.1", 1)
        self.flow = SimpleNamespace(read_paused=False)
        self.ended = asyncio.Event()
        self.transport = SimpleNamespace(abort=self.ended.set, is_closing=self.ended.is_set)
        self.cycle: Any = SimpleNamespace(
            body=bytearray(),
            more_body=True,
            response_complete=False,
            scope={"client": (address, 1)},
        )

    def data_received(self, data: bytes) -> None:
        self.cycle.body += data


@pytest.fixture
def limited() -> type[Http]:
    class Limited(Http):
        pass

    limit_bodies_of(Limited, SECONDS, LOOK_SECONDS, 100_000)
    return Limited


async def lives(one: Http) -> bool:
    try:
        await asyncio.wait_for(one.ended.wait(), 10 * SECONDS)
    except TimeoutError:
        return True
    return False


async def test_a_body_that_does_not_come_to_its_end_is_closed(limited: type[Http]) -> None:
    one = limited("10.0.0.1")
    one.data_received(b"x")
    await asyncio.wait_for(one.ended.wait(), 60)


async def test_a_body_that_comes_fast_enough_takes_its_time(limited: type[Http]) -> None:
    one = limited("10.0.0.1")
    one.data_received(b"x" * 10_000)
    assert await lives(one)


async def test_a_complete_body_and_one_that_is_not_read_are_left_alone(
    limited: type[Http],
) -> None:
    complete, unread = limited("10.0.0.1"), limited("10.0.0.1")
    for one in (complete, unread):
        one.data_received(b"x")
    complete.cycle.more_body = False
    complete.data_received(b"x")
    unread.flow.read_paused = True
    assert await lives(complete)
    assert await lives(unread)


async def test_those_that_have_more_than_their_part_of_an_address_are_closed_and_no_other(
    limited: type[Http],
) -> None:
    small = limited("10.0.0.1")
    large = [limited("10.0.0.1") for _ in range(6)]
    other = limited("10.0.0.2")
    for one in (small, *large, other):
        one.data_received(b"x" * 1_000)
    for one in (*large, other):
        one.data_received(b"x" * 29_000)
    closed = [one.ended.is_set() for one in large]
    assert closed == [False] * 3 + [True] * 3
    small.data_received(b"x" * 1_000)
    assert not small.ended.is_set() and not other.ended.is_set()
    # What is complete makes room.
    for one in large[:3]:
        one.cycle.more_body = False
        one.data_received(b"x")
    last = limited("10.0.0.1")
    last.data_received(b"x" * 90_000)
    assert not last.ended.is_set()


async def test_slow_bodies_count_however_little_has_come_of_them(limited: type[Http]) -> None:
    many = [limited("10.0.0.1") for _ in range(20)]
    for one in many:
        one.data_received(b"x" * 10_000)
    await asyncio.wait_for(many[-1].ended.wait(), 60)
    assert sum(one.ended.is_set() for one in many) < 20


@override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=20_000)
async def test_what_django_has_on_disk_does_not_count(limited: type[Http]) -> None:
    many = [limited("10.0.0.1") for _ in range(10)]
    for one in many:
        one.data_received(b"x" * 90_000)
    assert not any(one.ended.is_set() for one in many)
