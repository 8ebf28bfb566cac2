"""What a client of daphne has sent, parsed piece by piece.

autobahn parses a packet in one go, up to 64 KB, which may be thousands of messages. Here the rest
of a packet waits until the application has taken the first of them, and for the connection's slot;
the transport reads nothing meanwhile. What is in memory is counted (`inbound_bytes`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from realtime.delivery.inbound import payer_of, reading_share
from realtime.delivery.inbound_bytes import holding_of, weakly
from realtime.delivery.lingering import linger_daphne

# autobahn takes some tens of microseconds for a message.
_PIECE = 1_024
#: What of autobahn and Twisted is used for it.
NEEDED = (
    "STATE_CLOSED",
    "STATE_CLOSING",
    "application_queue",
    "dataReceived",
    "failedByMe",
    "state",
    "transport",
)
# Between two looks at whether the application has taken the messages of a piece.
_LOOK_SECONDS = 0.005

_running: set[asyncio.Task[None]] = set()


def parse_in_pieces(protocol: Any, too_much: Callable[[Any], None]) -> None:
    """Have this protocol parse what comes in pieces, from here on. `too_much` closes it for what it
    has in memory of its client's messages."""
    transport = protocol.transport
    if not all(hasattr(transport, name) for name in ("pauseProducing", "resumeProducing")):
        return
    parse: Callable[[Any, bytes], None] = type(protocol).dataReceived
    loop = asyncio.get_running_loop()
    # A function of the protocol that refers to it would be a circle.
    here = weakref.ref(protocol)
    rest = bytearray()

    def close_for_others(found: Any) -> None:
        if _goes_on(found):
            too_much(found)
        # Nothing more is parsed.
        found.message_data = found.frame_data = None
        rest.clear()

    account = payer_of(getattr(protocol, "client_addr", None), protocol).account
    holding = holding_of(account, weakly(protocol, close_for_others))

    def count(found: Any) -> None:
        # autobahn has the frames of a message in one list, and the parts of a frame in another,
        # while they are not complete. The length is what the frames' heads announce.
        begun = getattr(found, "message_data", None) or getattr(found, "frame_data", None)
        announced = found.message_data_total_length if begun else 0
        if not holding.set(max(announced, len(rest))) and _goes_on(found):
            close_for_others(found)
            holding.set(0)

    def data_received(data: bytes) -> None:
        found = here()
        if found is None:
            return
        if not rest and len(data) <= _PIECE:
            parse(found, data)
            count(found)
            return
        rest.extend(data)
        count(found)
        if len(rest) == len(data):
            found.transport.pauseProducing()
            task = loop.create_task(_parse(found, parse, rest, count), name="rowcast-pieces")
            _running.add(task)
            task.add_done_callback(_running.discard)

    protocol.dataReceived = data_received


async def _parse(
    protocol: Any,
    parse: Callable[[Any, bytes], None],
    rest: bytearray,
    count: Callable[[Any], None],
) -> None:
    payer = payer_of(getattr(protocol, "client_addr", None), protocol)
    share = reading_share()

    def parse_one() -> None:
        piece = bytes(rest[:_PIECE])
        del rest[:_PIECE]
        if _goes_on(protocol):
            parse(protocol, piece)

    try:
        while rest and _goes_on(protocol):
            if protocol.state == protocol.STATE_CLOSING:
                # The application has closed the socket, and takes no more messages.
                linger_daphne(protocol)
                break
            await share.run(payer, parse_one)
            await _until_taken(protocol)
    finally:
        rest.clear()
        count(protocol)
        if protocol.state != protocol.STATE_CLOSED:
            protocol.transport.resumeProducing()


async def _until_taken(protocol: Any) -> None:
    """Wait until the application has taken the messages that have come."""
    pause = 0.0
    while (
        protocol.application_queue.qsize()
        and _goes_on(protocol)
        and protocol.state != protocol.STATE_CLOSING
    ):
        await asyncio.sleep(pause)
        pause = _LOOK_SECONDS


def _goes_on(protocol: Any) -> bool:
    return bool(protocol.state != protocol.STATE_CLOSED and not protocol.failedByMe)
