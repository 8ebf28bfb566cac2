"""What a client of uvicorn has sent, parsed piece by piece.

uvicorn parses whatever the kernel has in one go, up to 256 KB, which may be tens of thousands of
messages. Here a packet is parsed until the first messages of it are there; the rest waits until the
application has taken those, and for the connection's slot. What is in memory meanwhile is counted
(`inbound_bytes`). Used by `FanoutProtocol`, and by plain uvicorn through `client_frames`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from realtime.delivery.inbound import PIECE, payer_of, reading_share
from realtime.delivery.inbound_bytes import SMALL_BYTES, holding_of, weakly
from realtime.util.payer_queue import Payer

Parse = Callable[[bytes], None]
# The attribute of a protocol that holds what is not parsed yet.
_REST = "rowcast_unparsed"
# That of the count of its bytes.
_HOLDING = "rowcast_holding"


def receive_pieces(protocol: Any, parse: Parse, data: bytes) -> None:
    """Parse what has come, or the beginning of it."""
    rest = vars(protocol).get(_REST)
    if rest is not None:
        rest += data
        if _closing(protocol):
            # The application takes no more messages, so nothing would parse the rest later.
            delattr(protocol, _REST)
            _parse_end(protocol, parse, bytes(rest))
        return
    if len(data) <= PIECE:
        parse(data)
        return
    view = memoryview(data)
    for end in range(PIECE, len(data) + PIECE, PIECE):
        parse(bytes(view[end - PIECE : end]))
        if _closing(protocol):
            _parse_end(protocol, parse, data[end:])
            return
        if protocol.read_paused and end < len(data):
            # Messages have come of it, and nothing more is read until they are taken.
            setattr(protocol, _REST, bytearray(view[end:]))
            return


async def parse_pieces(protocol: Any, parse: Parse) -> None:
    """Parse what was left until there is a message for the application, in slots of the connection.
    Called before the application waits for one."""
    rest = vars(protocol).get(_REST)
    if rest is None:
        return
    payer, share = _payer(protocol), reading_share()

    def parse_one() -> None:
        piece = bytes(rest[:PIECE])
        del rest[:PIECE]
        parse(piece)
        if _closing(protocol):
            _parse_end(protocol, parse, bytes(rest))
            rest.clear()

    while rest and protocol.queue.empty():
        await share.run(payer, parse_one)
    holding = vars(protocol).get(_HOLDING)
    if holding is not None:
        holding.set(_held(protocol))
    if not rest and vars(protocol).get(_REST) is rest:
        delattr(protocol, _REST)
        if protocol.read_paused and protocol.queue.empty():
            protocol.read_paused = False
            protocol.transport.resume_reading()


def hold_reading(protocol: Any) -> None:
    """Nothing more is read while something is left to parse. Called when the application has got a
    message, which lets uvicorn read on."""
    if _REST in vars(protocol) and not protocol.read_paused and not protocol.transport.is_closing():
        protocol.read_paused = True
        protocol.transport.pause_reading()


def holds_too_much(protocol: Any, close: Callable[[Any], object]) -> bool:
    """Whether the connection has to be closed, for what it has in memory of its client's messages.
    Called when bytes have come. `close` closes it later, where others of its address need room, and
    calls `forget_unread`."""
    size, holding = _held(protocol), vars(protocol).get(_HOLDING)
    if holding is None:
        if size <= SMALL_BYTES:
            return False
        holding = holding_of(_payer(protocol).account, weakly(protocol, close))
        setattr(protocol, _HOLDING, holding)
    return not holding.set(size)


def forget_unread(protocol: Any) -> None:
    """Forget what a connection that was failed has in memory, for others of its address."""
    protocol.frames = []
    rest = vars(protocol).get(_REST)
    if rest is not None:
        rest.clear()
    holding = vars(protocol).get(_HOLDING)
    if holding is not None:
        holding.set(_held(protocol))


def release(event: Any) -> None:
    """Forget the payload of a frame that was taken. `websockets` keeps a connection's last frame
    until the next one is complete."""
    event.data = b""


def _payer(protocol: Any) -> Payer:
    """Who pays for what the connection reads. Behind a proxy the scope has the client's address,
    which `--proxy-headers` puts there when the application is called; the protocol keeps the
    proxy's. Nothing of a client is counted before that call but the head of its handshake."""
    scope = vars(protocol).get("scope") or {}
    return payer_of(scope.get("client") or protocol.client, protocol)


def _held(protocol: Any) -> int:
    """The bytes of messages that are not complete, or not parsed."""
    parts = sum(map(len, protocol.frames)) if protocol.frames else 0
    held: int = len(protocol.conn.reader.buffer) + parts
    rest = vars(protocol).get(_REST)
    return held + (len(rest) if rest is not None else 0)


def _parse_end(protocol: Any, parse: Parse, data: bytes) -> None:
    """Nothing that follows a close frame counts, except the client's own. On a connection that is
    closed nothing counts: each answer to a ping would be a line in the log."""
    if not protocol.transport.is_closing():
        parse(data)


def _closing(protocol: Any) -> bool:
    return bool(protocol.transport.is_closing() or protocol.conn.close_sent is not None)
