"""Packets of daphne's clients are parsed in pieces, in order, while the transport reads nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from realtime.delivery.daphne_pieces import parse_in_pieces
from realtime.delivery.inbound import reading_share
from tests.support.waiting import auntil


class Transport:
    def __init__(self) -> None:
        self.paused = self.aborted = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def abortConnection(self) -> None:
        self.aborted = True


class Protocol:
    """What is used of daphne's."""

    STATE_CLOSED = 0
    STATE_CLOSING = 2

    def __init__(self) -> None:
        self.state = 3
        self.failedByMe = False
        self.transport = Transport()
        self.client_addr = ["127.0.0.1", 1]
        self.parsed: list[bytes] = []
        self.application_queue: asyncio.Queue[str] = asyncio.Queue()
        self.message_data: list[bytes] = []
        self.frame_data: list[bytes] | None = None
        self.message_data_total_length = 0

    def dataReceived(self, data: bytes) -> None:
        self.parsed.append(data)
        self.failedByMe = data.startswith(b"wrong")


def ended(protocol: Any) -> None:
    protocol.failedByMe = True


def protocol() -> Any:
    made = Protocol()
    parse_in_pieces(made, ended)
    return made


async def test_a_small_packet_is_parsed_at_once() -> None:
    one = protocol()
    one.dataReceived(b"small")
    assert (one.parsed, one.transport.paused) == ([b"small"], False)


async def test_a_large_packet_is_parsed_in_order_while_nothing_is_read() -> None:
    one = protocol()
    packet = bytes(range(256)) * 40
    one.dataReceived(packet)
    assert (one.parsed, one.transport.paused) == ([], True)
    # What was read already comes behind it.
    one.dataReceived(b"behind")
    await auntil(lambda: not one.transport.paused)
    assert b"".join(one.parsed) == packet + b"behind"
    assert max(map(len, one.parsed)) <= 1_024
    one.dataReceived(b"next")
    assert one.parsed[-1] == b"next"


async def test_after_an_error_the_rest_is_dropped() -> None:
    one = protocol()
    one.dataReceived(b"x" * 1_024 + b"wrong" + b"y" * 10_000)
    await auntil(lambda: not one.transport.paused)
    assert len(one.parsed) == 2


async def test_a_socket_that_has_gone_is_left_alone() -> None:
    one = protocol()
    one.dataReceived(b"x" * 10_000)
    one.state = one.STATE_CLOSED
    await asyncio.sleep(0)
    await auntil(lambda: reading_share().open)
    assert (one.parsed, one.transport.paused) == ([], True)


async def test_the_rest_of_a_packet_waits_until_its_messages_are_taken() -> None:
    one = protocol()
    one.application_queue.put_nowait("a message")
    one.dataReceived(b"x" * 10_000)
    await auntil(lambda: bool(one.parsed))
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(one.parsed) == 1 and one.transport.paused
    one.application_queue.get_nowait()
    await auntil(lambda: not one.transport.paused)
    assert len(b"".join(one.parsed)) == 10_000


async def test_a_socket_that_the_application_has_closed_is_read_on_and_nothing_is_parsed() -> None:
    one = protocol()
    one.application_queue.put_nowait("a message that is never taken")
    one.dataReceived(b"x" * 10_000)
    await auntil(lambda: bool(one.parsed))
    one.state = one.STATE_CLOSING
    await auntil(lambda: not one.transport.paused)
    one.dataReceived(b"y" * 10_000)
    assert len(one.parsed) == 1
    assert not one.transport.paused and not one.transport.aborted


async def test_parts_of_messages_of_one_address_are_bounded_together() -> None:
    many = [protocol() for _ in range(30)]
    for one in many:
        one.frame_data, one.message_data_total_length = [b"part"], 1_000_000
        one.dataReceived(b"small")
    ends = [one.failedByMe for one in many]
    assert not any(ends[:16]) and all(ends[16:])
    assert many[-1].frame_data is None
