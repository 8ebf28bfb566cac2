"""A client that takes long for the head of a request loses its connection, and no other does."""

from __future__ import annotations

import asyncio
import sys
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.delivery.request_heads import (
    limit_daphne_heads,
    limit_first_daphne_heads,
    limit_head_bytes_of,
    limit_heads_of,
)
from tests.support.waiting import PATIENCE_SECONDS

SECONDS = 0.02


class Http:
    """The part of uvicorn's HTTP protocols that is looked at."""

    def __init__(self, connections: set[Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self.connections = connections
        self.cycle: Any = None
        self.timeout_keep_alive_task: Any = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.connections.add(self)


def connected() -> Http:
    class Limited(Http):
        pass

    limit_heads_of(Limited, SECONDS)
    one = Limited(set())
    one.connection_made(SimpleNamespace(abort=one.ended.set))
    return one


async def lives(one: Any) -> bool:
    try:
        await asyncio.wait_for(one.ended.wait(), 5 * SECONDS)
    except TimeoutError:
        return True
    return False


async def ends(one: Any) -> bool:
    """Whether it is closed, however late the loop of a busy machine is."""
    return await asyncio.wait_for(one.ended.wait(), PATIENCE_SECONDS)


async def test_a_connection_without_a_request_is_closed() -> None:
    assert await ends(connected())


async def test_a_request_that_is_being_served_takes_its_time() -> None:
    one = connected()
    one.cycle = SimpleNamespace(response_complete=False)
    assert await lives(one)


async def test_a_connection_that_uvicorn_keeps_for_another_request_is_uvicorn_s() -> None:
    one = connected()
    one.cycle = SimpleNamespace(response_complete=True)
    one.timeout_keep_alive_task = object()
    assert await lives(one)


async def test_a_second_request_that_does_not_come_to_its_end_is_closed() -> None:
    one = connected()
    one.cycle = SimpleNamespace(response_complete=True)
    assert await ends(one)


async def test_a_websocket_is_left_alone() -> None:
    one = connected()
    one.connections.discard(one)
    assert await lives(one)


# --- daphne ---------------------------------------------------------------------------------------


class Channel:
    """The part of Twisted's HTTP channel that is looked at."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.ended = asyncio.Event()
        self.transport: Any = SimpleNamespace(protocol=self, abortConnection=self.ended.set)
        self.heads = 0

    def allHeadersReceived(self) -> None:
        self.heads += 1
        self.requests[-1].content = object()

    def has_come(self, body: bytes, *, complete: bool) -> None:
        self.requests[-1].content = BytesIO(body)
        self.requests[-1].content.seek(len(body))
        self._transferDecoder = None if complete else object()


class Factory:
    def buildProtocol(self, address: Any) -> Channel:
        return Channel()


def accepted() -> Any:
    factory = Factory()
    for _ in range(3):
        limit_daphne_heads(factory, SECONDS, SECONDS)
    return factory.buildProtocol(None)


async def test_daphne_keeps_no_connection_whose_request_does_not_come_to_its_end() -> None:
    silent, dribbling = accepted(), accepted()
    dribbling.requests.append(SimpleNamespace(content=None))
    assert await ends(silent)
    assert await ends(dribbling)


async def test_daphne_serves_a_request_whose_head_came_in_time() -> None:
    one = accepted()
    one.requests.append(SimpleNamespace(content=None))
    one.allHeadersReceived()
    assert one.heads == 1
    assert await lives(one)


async def test_daphne_s_websockets_are_left_alone() -> None:
    one = accepted()
    one.transport.protocol = object()
    assert await lives(one)


class HttptoolsProtocol:
    """What is used of uvicorn's protocol with httptools."""

    def __init__(self) -> None:
        self.transport = SimpleNamespace(aborted=False)
        self.transport.abort = lambda: setattr(self.transport, "aborted", True)
        self.before = b""

    def on_message_begin(self) -> None:
        self.before = b""

    def on_headers_complete(self) -> None:
        self.before = b"body"

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET"):
            self.on_message_begin()
        if b"\r\n\r\n" in data:
            self.on_headers_complete()


def test_a_head_without_end_is_closed_by_its_size() -> None:
    class Limited(HttptoolsProtocol):
        pass

    limit_head_bytes_of(Limited, 1_000)
    one = Limited()
    for _ in range(3):
        one.data_received(b"GET / HTTP/1.1\r\nx: " + b"y" * 900)
        one.data_received(b"\r\n\r\n")
        # What follows a head is no part of it.
        one.data_received(b"z" * 5_000)
        assert one.before == b"body" and not one.transport.aborted
    one.data_received(b"GET / HTTP/1.1\r\n")
    for _ in range(3):
        one.data_received(b"x: " + b"y" * 500)
    assert one.transport.aborted


async def test_daphne_s_connections_are_limited_before_any_of_them_is_a_websocket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class First(Factory):
        pass

    monkeypatch.setitem(sys.modules, "daphne.http_protocol", SimpleNamespace(HTTPFactory=First))
    limit_first_daphne_heads(SECONDS)
    factory = First()
    limit_daphne_heads(factory, 3_600)
    assert await ends(factory.buildProtocol(None))


async def test_daphne_keeps_no_body_that_does_not_come_to_its_end() -> None:
    slow, fast, complete = accepted(), accepted(), accepted()
    for one, come in ((slow, b""), (fast, b"x" * 10_000), (complete, b"")):
        one.requests.append(SimpleNamespace(content=None))
        one.allHeadersReceived()
        one.has_come(come, complete=one is complete)
    await asyncio.wait_for(slow.ended.wait(), 60)
    assert await lives(fast)
    assert await lives(complete)
