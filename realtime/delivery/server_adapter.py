"""Server adapters: abilities of the server behind an ASGI `send` that ASGI does not describe.

A server with back-pressure makes `send` wait, and nothing more is needed. Daphne puts everything
into its transport's buffer at once, without bound, so the size of that buffer is read. Daphne is
also given finished frames instead of messages: its `send` makes a frame anew for each socket, fails
for messages larger than it accepts from clients (1 MiB), and Twisted asks the selector before and
after each write. A finished frame, written to a socket whose transport buffer is empty, costs an
eighth of that (`benchmarks.fanout --only daphne`). Further frames for the socket in the same
iteration of the loop are left to the transport, which joins them to one write.

None of this is a public interface. Each ability is used only where everything that it needs is as
expected; otherwise, and behind a middleware that wraps `send`, messages go by ASGI alone.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from importlib import import_module
from typing import Any, cast
from weakref import WeakKeyDictionary

from realtime.delivery import daphne_pieces
from realtime.delivery.frame_budget import FrameBudget
from realtime.delivery.request_heads import limit_daphne_heads, limit_request_heads
from realtime.delivery.uvicorn_pieces import (
    hold_reading,
    holds_too_much,
    parse_pieces,
    receive_pieces,
    release,
)
from realtime.protocol.errors import CloseCode

# Their `send` waits only for a full transport, and does not need a current task.
_PLAIN = (
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvicorn.protocols.websockets.wsproto_impl",
)
_DAPHNE = ("daphne.ws_protocol", "WebSocketProtocol"), ("daphne.server", "Server.handle_reply")
# Transports that carry bytes unencrypted. TLS and wrappers have others.
_BARE = ("twisted.internet.tcp", "twisted.internet.unix")
# Bytes of a close frame's reason.
_LONGEST_REASON = 123
_UVICORN = ("uvicorn.protocols.websockets.websockets_sansio_impl", "WebSocketsSansIOProtocol")
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
# The attribute of a socket of uvicorn whose client's frames are bounded.
_BUDGET = "_rowcast_budget"
# The attribute that says whether what its client sends is parsed in pieces.
_IN_PIECES = "rowcast_in_pieces"
# How long the data of a client is dropped before its connection is closed.
_LINGER_SECONDS = 1.0
# How long a client may take to read the frames before its close frame.
_UNREAD_SECONDS = 15.0


def _nothing_waits() -> int:
    return 0


@dataclass(frozen=True, slots=True)
class ServerAdapter:
    """The abilities of a server for one of its sockets. The default has none."""

    #: `send` may be begun outside any task of its own.
    eager: bool = False
    #: Bytes that wait behind `send`.
    unsent: Callable[[], int] = _nothing_waits
    #: Sends a finished WebSocket frame; False where the message has to go by `send`.
    write: Callable[[bytes], bool] | None = None


UNKNOWN = ServerAdapter()


class _TickCounter:
    """Counts the iterations of an event loop in which frames are written."""

    def __init__(self) -> None:
        self._number = 0
        self._over = True

    def now(self) -> int:
        """The number of this iteration."""
        if self._over:
            self._over = False
            self._number += 1
            asyncio.get_running_loop().call_soon(self._pass)
        return self._number

    def _pass(self) -> None:
        self._over = True


_tick_counters: WeakKeyDictionary[asyncio.AbstractEventLoop, _TickCounter] = WeakKeyDictionary()


def adapter_of(send: Any) -> ServerAdapter:
    """The adapter of the server that this ASGI `send` belongs to; one without abilities for an
    unknown server.

    Called on the event loop of the server.
    """
    if not isinstance(send, functools.partial):
        return ServerAdapter(eager=type(getattr(send, "__self__", None)).__module__ in _PLAIN)
    # Daphne's `send` is bound to the protocol of the connection.
    protocol = send.args[0] if send.args else None
    transport: Any = getattr(protocol, "transport", None)
    unsent = _unsent_of(transport) if _has_buffer(transport) else _nothing_waits
    if (_named(type(protocol)), _named(send.func)) != _DAPHNE:
        return ServerAdapter(unsent=unsent)
    return ServerAdapter(True, unsent, _writer(protocol, transport))


def _named(thing: Any) -> tuple[str, str]:
    return getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "")


def _has_buffer(transport: Any) -> bool:
    return all(hasattr(transport, name) for name in ("dataBuffer", "offset", "_tempDataLen"))


def _unsent_of(transport: Any) -> Callable[[], int]:
    def unsent() -> int:
        waiting: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return waiting

    return unsent


def _writer(protocol: Any, transport: Any) -> Callable[[bytes], bool] | None:
    known = all(hasattr(protocol, name) for name in ("state", "STATE_OPEN", "send_queue"))
    if not known or not hasattr(transport, "write"):
        return None
    loop = asyncio.get_running_loop()
    ticks = _tick_counters.setdefault(loop, _TickCounter())
    is_open = protocol.STATE_OPEN
    bare = type(transport).__module__ in _BARE and _has_buffer(transport) and not transport.TLS
    # The socket and not its descriptor, whose number may be used again once it is closed. Twisted
    # drops the socket of a client that has gone.
    socket = getattr(transport, "socket", None) if bare else None
    last = 0

    def write(frame: bytes) -> bool:
        nonlocal last
        if protocol.state != is_open or protocol.send_queue:
            # No frame may follow a close frame, which may have been sent.
            return False
        tick = ticks.now()
        if socket is None or tick == last or transport._tempDataLen or transport.dataBuffer:
            transport.write(frame)
            return True
        last = tick
        try:
            sent = socket.send(frame)
        except OSError:
            # Full or broken: the transport will see which.
            sent = 0
        if sent != len(frame):
            try:
                transport.write(frame[sent:])
            except Exception:
                # After half a frame, no further frame could be read.
                transport.abortConnection()
                raise
        return True

    return write


def is_gone(error: BaseException) -> bool:
    """Whether a send failed because the client has gone.

    ASGI says OSError. Daphne raises autobahn's own exception, which is recognised by its name,
    since autobahn need not be installed under another server.
    """
    return isinstance(error, OSError) or type(error).__name__ == "Disconnected"


async def send_close(
    send: Callable[[dict[str, Any]], Awaitable[None]], code: int, reason: str
) -> None:
    """Close the socket of this ASGI `send` with any code, and a reason of at most 123 bytes; of a
    longer one the beginning. Raises what `send` raises.

    Daphne's own way has no reason, and no codes that autobahn does not allow, such as 1012. So its
    close frame is made with autobahn's own method. Where that is missing, the socket ends without
    a reason.
    """
    shown = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
    # Daphne's `send` is bound to the protocol of the connection.
    protocol = send.args[0] if isinstance(send, functools.partial) and send.args else None
    make_frame = getattr(protocol, "sendCloseFrame", None)
    if make_frame is not None:
        make_frame(code=int(code), reasonUtf8=shown.encode(), isReply=False)
        return
    own: Any = getattr(send, "__self__", None)
    if _named(type(own)) == _UVICORN:
        # uvicorn waits without end for a client that does not read its close frame.
        own.loop.call_later(_UNREAD_SECONDS, own.transport.abort)
    await send({"type": "websocket.close", "code": int(code), "reason": shown})


def answer_refusal(
    send: Any, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> None:
    """Have a server that refuses a handshake by a bare 403 alone, as daphne does, answer with this
    instead. The handshake is still to be refused."""
    if not isinstance(send, functools.partial) or not send.args:
        return
    protocol = send.args[0]
    known = all(hasattr(protocol, name) for name in ("sendHttpErrorResponse", "sendData"))
    if (_named(type(protocol)), _named(send.func)) != _DAPHNE or not known:
        return
    lines = [b"%d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%s: %s" % header for header in headers]
    answer = b"HTTP/1.1 " + b"\r\n".join([*lines, b"", body])
    # A function of the protocol that refers to it would be a circle.
    here = weakref.ref(protocol)

    def respond(*_: Any) -> None:
        found = here()
        if found is not None:
            found.sendData(answer)

    protocol.sendHttpErrorResponse = respond


# --- frames of clients --------------------------------------------------------------------------


def bound_frames(send: Any, message_bytes: int | None) -> None:
    """Bound what the client may send below the protocol, where the server allows it: pings, pongs
    and fragments in number, and messages in bytes before they are complete.

    Excess closes the socket with 4429 or 4413. `FanoutProtocol` does this itself.
    """
    if not isinstance(send, functools.partial):
        protocol = getattr(send, "__self__", None)
        if _named(type(protocol)) == _UVICORN and hasattr(protocol, "conn"):
            _bound_uvicorn(protocol, message_bytes)
        return
    protocol = send.args[0] if send.args else None
    if (_named(type(protocol)), _named(send.func)) == _DAPHNE:
        _bound_daphne(protocol, message_bytes)


def bound_first_connections() -> None:
    """Bound what clients may send from the first connection on, in a process of uvicorn. Without
    this, `bound_frames` does so from the second one on. Called before the server listens."""
    if "uvicorn" not in sys.modules:
        return
    limit_request_heads()
    module, name = _UVICORN
    try:
        protocols = getattr(import_module(module), name)
    except ImportError:
        # uvicorn works without `websockets` too, with other protocols or none.
        return
    _bound_uvicorn_class(protocols)


def _bound_uvicorn(protocol: Any, message_bytes: int | None) -> None:
    limit_request_heads()
    _bound_uvicorn_class(cast(Any, type(protocol)))
    if message_bytes is not None:
        protocol.conn.max_message_size = message_bytes
    setattr(protocol, _BUDGET, FrameBudget())


@functools.cache
def _bound_uvicorn_class(protocols: Any) -> None:
    """Make this class of protocols obey the budget that a socket may have, and parse in pieces what
    clients send.

    Once for the class: functions for each socket would cost it kilobytes.
    """

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
        setattr(self, _IN_PIECES, type(self) is protocols)
        connect(self, event)

    def bounded_data_received(self: Any, data: bytes) -> None:
        if vars(self).get(_IN_PIECES):
            receive_pieces(self, functools.partial(data_received, self), data)
            if _BUDGET in vars(self) and holds_too_much(self):
                fail_uvicorn(self, int(CloseCode.TOO_MANY), CloseCode.TOO_MANY.meaning)
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


def deliver_uvicorn(protocol: Any) -> None:
    """Give a whole message to the application, as uvicorn does; one that is not UTF-8 closes the
    socket without a traceback in the log."""
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
    if not protocol.read_paused:
        protocol.read_paused = True
        protocol.transport.pause_reading()


def fail_uvicorn(protocol: Any, code: int, reason: str) -> None:
    """Close a socket of uvicorn because of its client's frames."""
    if not protocol.close_sent:
        protocol.conn.fail(code, reason)
        protocol.handle_parser_exception()


def end_uvicorn(protocol: Any) -> None:
    """Close a socket of uvicorn whose `conn` has failed.

    What the client still sends is read and dropped for a moment: a connection that is closed over
    unread bytes is reset, and the close frame may be lost with it.
    """
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
    if transport.can_write_eof():
        transport.write_eof()
    protocol.read_paused = False
    transport.resume_reading()
    protocol.close_timer = protocol.loop.call_later(_LINGER_SECONDS, transport.abort)


def _close_frame(code: int, reason: str) -> bytes:
    payload = code.to_bytes(2) + reason.encode()
    # Final, a close frame, not masked.
    return bytes((0x88, len(payload))) + payload


def _bound_daphne(protocol: Any, message_bytes: int | None) -> None:
    limit_daphne_heads(getattr(getattr(protocol, "server", None), "http_factory", None))
    if not all(hasattr(protocol, name) for name in _AUTOBAHN):
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


def _nothing_more() -> bool:
    return False


def _ignore(data: bytes) -> None:
    return None


def _is_whole(protocol: Any) -> bool:
    """Whether the frame that autobahn is reading is a whole message."""
    return protocol is None or bool(protocol.current_frame.fin and protocol.current_frame.opcode)


def _fail_daphne(protocol: Any, code: CloseCode) -> None:
    protocol.failedByMe = True
    # A second error in the data that follows would drop the connection with the close frame.
    protocol.processData = _nothing_more
    protocol.dataReceived = _ignore
    protocol.sendCloseFrame(code=int(code), reasonUtf8=code.meaning.encode(), isReply=False)
    # A client that does not read, or goes on sending, loses its socket then.
    asyncio.get_running_loop().call_later(_LINGER_SECONDS, protocol.transport.abortConnection)
