"""Bounds on what clients send below the protocol, under uvicorn and daphne.

Pings, pongs and fragments in number, messages in bytes before they are complete, and pieces for
what is parsed at a time. Neither server has an interface for all of this; where their objects are
not as expected, nothing is changed, and a line of the log says so. `FanoutProtocol` bounds its
clients itself, with the same functions.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import weakref
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, cast

from realtime.delivery import daphne_pieces
from realtime.delivery.expected import is_expected
from realtime.delivery.frame_budget import FrameBudget
from realtime.delivery.lingering import linger_daphne, linger_uvicorn
from realtime.delivery.request_heads import (
    limit_daphne_heads,
    limit_first_daphne_heads,
    limit_request_heads,
)
from realtime.delivery.server_adapter import UVICORN, protocol_of_daphne, protocol_of_uvicorn
from realtime.delivery.uvicorn_pieces import (
    forget_unread,
    hold_reading,
    holds_too_much,
    parse_pieces,
    receive_pieces,
    release,
)
from realtime.protocol.errors import CloseCode

# The attributes of autobahn's protocol that bound a client's frames.
_AUTOBAHN = (
    "_onPing",
    "_onPong",
    "_onMessageFrameBegin",
    "_max_message_size_exceeded",
    "failByDrop",
    "failedByMe",
    "maxFramePayloadSize",
    "maxMessagePayloadSize",
    "sendCloseFrame",
)
# The methods of uvicorn's class of protocols that are replaced.
_UVICORN_METHODS = (
    "data_received",
    "handle_bytes",
    "handle_connect",
    "handle_cont",
    "handle_parser_exception",
    "handle_ping",
    "handle_pong",
    "handle_text",
    "receive",
    "send_receive_event_to_app",
)
# What is used of one of its protocols, and of the connection of `websockets` in it.
_UVICORN_STATE = (
    "client",
    "close_sent",
    "close_timer",
    "conn",
    "curr_msg_data_type",
    "frames",
    "loop",
    "queue",
    "read_paused",
    "transport",
)
_WEBSOCKETS = ("close_sent", "data_to_send", "fail", "parser_exc", "reader")
# What clients may do where any of these is missing.
_UNBOUNDED = "send pings, pongs, fragments and messages that are not complete"
# The attribute of a socket of uvicorn whose client's frames are bounded.
_BUDGET = "_rowcast_budget"
# The attribute that says whether what its client sends is parsed in pieces.
_IN_PIECES = "rowcast_in_pieces"


def bound_frames(send: Any, message_bytes: int | None) -> None:
    """Bound what the client may send below the protocol, where the server allows it: pings, pongs
    and fragments in number, and messages in bytes before they are complete.

    Excess closes the socket with 4429 or 4413. `FanoutProtocol` does this itself.
    """
    of_uvicorn, of_daphne = protocol_of_uvicorn(send), protocol_of_daphne(send)
    if of_uvicorn is not None:
        _bound_uvicorn(of_uvicorn, message_bytes)
    elif of_daphne is not None:
        _bound_daphne(of_daphne, message_bytes)


def bound_first_connections() -> None:
    """Bound what clients may send from the first connection on. Without this, `bound_frames` does
    so from the second one on. Called before the server listens."""
    limit_first_daphne_heads()
    if "uvicorn" not in sys.modules:
        return
    limit_request_heads()
    name, protocols = UVICORN
    try:
        module = import_module(name)
    except ImportError:
        # uvicorn works without `websockets` too, with other protocols or none.
        return
    if is_expected(module, (protocols,), _UNBOUNDED):
        _bound_uvicorn_class(getattr(module, protocols))


def _bound_uvicorn(protocol: Any, message_bytes: int | None) -> None:
    limit_request_heads()
    if not _bound_uvicorn_class(cast(Any, type(protocol))) or not _is_known(protocol):
        return
    if message_bytes is not None:
        protocol.conn.max_message_size = message_bytes
    setattr(protocol, _BUDGET, FrameBudget())


def _is_known(protocol: Any) -> bool:
    """Whether a protocol of uvicorn has what is used of it."""
    return (
        is_expected(protocol, _UVICORN_STATE, _UNBOUNDED)
        and is_expected(protocol.conn, _WEBSOCKETS, _UNBOUNDED)
        and is_expected(protocol.conn.reader, ("buffer",), _UNBOUNDED)
    )


@functools.cache
def _bound_uvicorn_class(protocols: Any) -> bool:
    """Make this class of protocols obey the budget that a socket may have, and parse in pieces what
    clients send. False if the class is not as expected; nothing is changed then.

    Once for the class: functions for each socket would cost it kilobytes.
    """
    if not is_expected(protocols, _UVICORN_METHODS, _UNBOUNDED):
        return False

    def bounded(name: str, allowed: Callable[[FrameBudget, float], bool]) -> None:
        handle = getattr(protocols, name)

        def bounded_handle(self: Any, *event: Any) -> None:
            budget = vars(self).get(_BUDGET)
            if budget is None:
                handle(self, *event)
            elif not self.close_sent:
                if allowed(budget, self.loop.time()):
                    handle(self, *event)
                else:
                    fail_uvicorn(self, int(CloseCode.TOO_MANY), CloseCode.TOO_MANY.meaning)

        setattr(protocols, name, bounded_handle)

    def replaced(name: str, function: Callable[[Any], None]) -> None:
        handle = getattr(protocols, name)

        def replacement(self: Any) -> None:
            (function if _BUDGET in vars(self) else handle)(self)

        setattr(protocols, name, replacement)

    connect, data_received, receive = (
        protocols.handle_connect,
        protocols.data_received,
        protocols.receive,
    )

    def bounded_connect(self: Any, event: Any) -> None:
        # Not for a socket that was there before: its application has the method of before. A class
        # made of this one, as `FanoutProtocol` is, has bounds of its own.
        setattr(self, _IN_PIECES, type(self) is protocols and _is_known(self))
        connect(self, event)

    def bounded_data_received(self: Any, data: bytes) -> None:
        if vars(self).get(_IN_PIECES):
            receive_pieces(self, functools.partial(data_received, self), data)
            if _BUDGET in vars(self) and holds_too_much(self, _close_for_others):
                _close_for_others(self)
        else:
            data_received(self, data)

    def bounded_receive(self: Any) -> Awaitable[Any]:
        return received_in_pieces(self) if vars(self).get(_IN_PIECES) else receive(self)

    async def received_in_pieces(self: Any) -> Any:
        await parse_pieces(self, functools.partial(data_received, self))
        message = await receive(self)
        hold_reading(self)
        return message

    def released(name: str) -> None:
        handle = getattr(protocols, name)

        def released_handle(self: Any, event: Any) -> None:
            handle(self, event)
            release(event)

        setattr(protocols, name, released_handle)

    protocols.handle_connect = bounded_connect
    protocols.data_received, protocols.receive = bounded_data_received, bounded_receive
    bounded("handle_ping", FrameBudget.control)
    bounded("handle_pong", FrameBudget.control)
    bounded("handle_cont", FrameBudget.fragment)
    for name in ("handle_text", "handle_bytes", "handle_cont"):
        released(name)
    replaced("handle_parser_exception", end_uvicorn)
    replaced("send_receive_event_to_app", deliver_uvicorn)
    return True


def _close_for_others(protocol: Any) -> None:
    """Close a socket of uvicorn because others of its address need the memory that it has."""
    fail_uvicorn(protocol, int(CloseCode.TOO_MANY), CloseCode.TOO_MANY.meaning)
    forget_unread(protocol)


def deliver_uvicorn(protocol: Any, *, reads_on: bool = False) -> None:
    """Give a whole message to the application, as uvicorn does; one that is not UTF-8 closes the
    socket without a traceback in the log. Unless `reads_on`, nothing more is read until it is
    taken."""
    frames, protocol.frames = protocol.frames, []
    if protocol.close_sent:
        return
    data = frames[0] if len(frames) == 1 else b"".join(frames)
    if protocol.curr_msg_data_type == "text":
        try:
            protocol.queue.put_nowait({"type": "websocket.receive", "text": data.decode()})
        except UnicodeDecodeError:
            fail_uvicorn(protocol, 1007, "not UTF-8")
            return
    else:
        protocol.queue.put_nowait({"type": "websocket.receive", "bytes": data})
    if not reads_on and not protocol.read_paused:
        protocol.read_paused = True
        protocol.transport.pause_reading()


def fail_uvicorn(protocol: Any, code: int, reason: str) -> None:
    """Close a socket of uvicorn because of its client's frames."""
    if not protocol.close_sent:
        protocol.conn.fail(code, reason)
        protocol.handle_parser_exception()


def end_uvicorn(protocol: Any) -> None:
    """Close a socket of uvicorn whose `conn` has failed. What the client still sends is read and
    dropped for a moment."""
    conn, transport = protocol.conn, protocol.transport
    if protocol.close_sent or conn.close_sent is None:
        return
    output = conn.data_to_send()
    code, reason = conn.close_sent.code, conn.close_sent.reason
    if type(conn.parser_exc).__name__ == "PayloadTooBig":
        code, reason = int(CloseCode.FRAME_TOO_LARGE), CloseCode.FRAME_TOO_LARGE.meaning
        # The items are the close frame, and an empty one that ends the sending direction.
        output = [*output[:-2], _close_frame(code, reason)]
    protocol.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
    protocol.close_sent = True
    if transport.is_closing():
        return
    transport.write(b"".join(output))
    linger_uvicorn(protocol)


def _close_frame(code: int, reason: str) -> bytes:
    payload = code.to_bytes(2) + reason.encode()
    # Final, a close frame, not masked.
    return bytes((0x88, len(payload))) + payload


def _bound_daphne(protocol: Any, message_bytes: int | None) -> None:
    limit_daphne_heads(getattr(getattr(protocol, "server", None), "http_factory", None))
    if not is_expected(protocol, _AUTOBAHN, _UNBOUNDED):
        return
    if message_bytes is not None:
        protocol.maxMessagePayloadSize = protocol.maxFramePayloadSize = message_bytes
    # A violation of the protocol is answered by a close frame instead of a lost connection.
    protocol.failByDrop = False
    budget = FrameBudget()
    here, time = weakref.ref(protocol), asyncio.get_running_loop().time

    def bounded(name: str, allowed: Callable[[float], bool]) -> None:
        handle = getattr(type(protocol), name)

        def bounded_handle(*arguments: Any) -> None:
            found = here()
            if found is None or found.failedByMe:
                return
            if allowed(time()):
                handle(found, *arguments)
            else:
                _fail_daphne(found, CloseCode.TOO_MANY)

        setattr(protocol, name, bounded_handle)

    bounded("_onPing", budget.control)
    bounded("_onPong", budget.control)
    bounded("_onMessageFrameBegin", lambda now: _is_whole(here()) or budget.fragment(now))

    def too_large(*details: Any) -> None:
        found = here()
        if found is not None:
            _fail_daphne(found, CloseCode.FRAME_TOO_LARGE)

    protocol._max_message_size_exceeded = too_large
    if all(hasattr(protocol, name) for name in daphne_pieces.NEEDED):
        daphne_pieces.parse_in_pieces(
            protocol, functools.partial(_fail_daphne, code=CloseCode.TOO_MANY)
        )


def _is_whole(protocol: Any) -> bool:
    """Whether the frame that autobahn is reading is a whole message."""
    return protocol is None or bool(protocol.current_frame.fin and protocol.current_frame.opcode)


def _fail_daphne(protocol: Any, code: CloseCode) -> None:
    protocol.failedByMe = True
    protocol.sendCloseFrame(code=int(code), reasonUtf8=code.meaning.encode(), isReply=False)
    linger_daphne(protocol)
