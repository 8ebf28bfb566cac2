"""Packets of uvicorn's clients are parsed as the application takes what is in them."""

from __future__ import annotations

import asyncio
import tracemalloc
from types import SimpleNamespace
from typing import Any

from websockets.http11 import Request
from websockets.server import ServerProtocol

from realtime.delivery.inbound import PIECE
from realtime.delivery.uvicorn_pieces import (
    forget_unread,
    hold_reading,
    holds_too_much,
    parse_pieces,
    receive_pieces,
    release,
)


class Transport:
    def __init__(self) -> None:
        self.paused = self.closing = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closing


class Protocol:
    """Takes each byte for a message, but a dash, which is a part of one."""

    def __init__(self) -> None:
        self.client = ("127.0.0.1", 1)
        self.transport = Transport()
        self.conn = SimpleNamespace(close_sent=None, reader=SimpleNamespace(buffer=bytearray()))
        self.frames: list[bytes] = []
        self.read_paused = False
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        self.parsed = bytearray()

    def parse(self, data: bytes) -> None:
        self.parsed += data
        for byte in data.replace(b"-", b""):
            self.queue.put_nowait(byte)
            if not self.read_paused:
                self.read_paused = True
                self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        receive_pieces(self, self.parse, data)

    async def receive(self) -> int:
        await parse_pieces(self, self.parse)
        found = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self.transport.resume_reading()
        hold_reading(self)
        return found


async def taken(protocol: Any, count: int) -> bytes:
    return bytes([await protocol.receive() for _ in range(count)])


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_a_connection_does_not_keep_its_last_message() -> None:
    conn = ServerProtocol()
    conn.receive_data(HANDSHAKE)
    (request,) = conn.events_received()
    assert isinstance(request, Request)
    conn.send_response(conn.accept(request))
    size = 1_000_000
    tracemalloc.start()
    try:
        conn.receive_data(b"\x82\xff" + size.to_bytes(8) + bytes(4) + bytes(size))
        for event in conn.events_received():
            release(event)
        del event
        assert tracemalloc.get_traced_memory()[0] < size / 2
    finally:
        tracemalloc.stop()


def test_parts_of_messages_of_one_address_are_bounded_together() -> None:
    many: list[Any] = [Protocol() for _ in range(30)]
    for one in many:
        one.conn.reader.buffer += bytes(1_000_000)
    refused = [holds_too_much(one, forget_unread) for one in many]
    assert not any(refused[:10]) and all(refused[20:])
    # What is forgotten, or gone, does not count.
    for one in many[20:]:
        one.conn.reader.buffer.clear()
        forget_unread(one)
    many = many[10:20]
    late: Any = Protocol()
    late.frames.append(bytes(1_000_000))
    assert not holds_too_much(late, forget_unread)


def test_clients_behind_a_proxy_are_told_apart_by_the_address_in_the_scope() -> None:
    many: list[Any] = [Protocol() for _ in range(30)]
    for number, one in enumerate(many):
        one.scope = {"client": one.client}
        # As middleware does when the application is called.
        one.scope["client"] = (f"192.0.2.{number}", 0)
        one.conn.reader.buffer += bytes(1_000_000)
    assert not any(holds_too_much(one, forget_unread) for one in many)


async def test_a_small_packet_is_parsed_at_once() -> None:
    one = Protocol()
    one.data_received(b"abc")
    assert one.parsed == b"abc"
    assert await taken(one, 3) == b"abc" and not one.transport.paused


async def test_the_rest_of_a_packet_waits_until_its_messages_are_taken() -> None:
    one = Protocol()
    packet = bytes(range(256)).replace(b"-", b"") * 100
    one.data_received(packet)
    assert len(one.parsed) == PIECE
    assert await taken(one, PIECE) == packet[:PIECE]
    assert one.transport.paused and len(one.parsed) == PIECE
    assert await taken(one, len(packet) - PIECE) == packet[PIECE:]
    assert not one.transport.paused
    one.data_received(b"next")
    assert await taken(one, 4) == b"next"


async def test_a_message_without_end_is_parsed_as_it_comes() -> None:
    one = Protocol()
    one.data_received(b"-" * 50_000)
    assert len(one.parsed) == 50_000 and not one.transport.paused


async def test_parts_behind_the_last_message_are_parsed_and_reading_goes_on() -> None:
    one = Protocol()
    one.data_received(b"a" * PIECE + b"-" * 50_000)
    assert await taken(one, PIECE) == b"a" * PIECE
    waiting = asyncio.create_task(one.receive())
    while one.transport.paused:
        await asyncio.sleep(0)
    assert len(one.parsed) == PIECE + 50_000
    one.data_received(b"z")
    assert await waiting == ord("z")


async def test_a_socket_that_closes_is_given_what_is_left() -> None:
    one = Protocol()
    one.data_received(b"a" * 20_000)
    one.conn.close_sent = object()
    one.data_received(b"b")
    assert one.parsed == b"a" * 20_000 + b"b"


async def test_what_is_left_of_a_lost_connection_is_answered_by_nothing() -> None:
    one = Protocol()
    one.data_received(b"a" * 20_000)
    before = len(one.parsed)
    one.transport.closing = True
    one.data_received(b"b")
    assert len(one.parsed) == before < 20_000
