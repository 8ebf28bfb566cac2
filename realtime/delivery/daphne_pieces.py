"""What a client of daphne has sent, parsed piece by piece.

autobahn parses a packet in one go, up to 64 KB, which may be thousands of messages. Here the rest
of a packet waits for the connection's slot; the transport reads nothing meanwhile.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from realtime.delivery.inbound import payer_of, reading_share

# autobahn takes some tens of microseconds for a message.
_PIECE = 1_024
#: What of autobahn and Twisted is used for it.
NEEDED = ("STATE_CLOSED", "dataReceived", "failedByMe", "state", "transport")

_running: set[asyncio.Task[None]] = set()


def parse_in_pieces(protocol: Any) -> None:
    """Have this protocol parse what comes in pieces, from here on."""
    transport = protocol.transport
    if not all(hasattr(transport, name) for name in ("pauseProducing", "resumeProducing")):
        return
    parse: Callable[[Any, bytes], None] = type(protocol).dataReceived
    loop = asyncio.get_running_loop()
    # A function of the protocol that refers to it would be a circle.
    here = weakref.ref(protocol)
    rest = bytearray()

    def data_received(data: bytes) -> None:
        found = here()
        if found is None:
            return
        if not rest and len(data) <= _PIECE:
            parse(found, data)
            return
        rest.extend(data)
        if len(rest) == len(data):
            found.transport.pauseProducing()
            task = loop.create_task(_parse(found, parse, rest), name="rowcast-pieces")
            _running.add(task)
            task.add_done_callback(_running.discard)

    protocol.dataReceived = data_received


async def _parse(protocol: Any, parse: Callable[[Any, bytes], None], rest: bytearray) -> None:
    payer = payer_of(getattr(protocol, "client_addr", None), protocol)
    share = reading_share()

    def goes_on() -> bool:
        return protocol.state != protocol.STATE_CLOSED and not protocol.failedByMe

    def parse_one() -> None:
        piece = bytes(rest[:_PIECE])
        del rest[:_PIECE]
        if goes_on():
            parse(protocol, piece)

    try:
        while rest and goes_on():
            await share.run(payer, parse_one)
    finally:
        rest.clear()
        if protocol.state != protocol.STATE_CLOSED:
            protocol.transport.resumeProducing()
