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
import weakref
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

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
UVICORN = ("uvicorn.protocols.websockets.websockets_sansio_impl", "WebSocketsSansIOProtocol")
"""Module and name of uvicorn's own class of WebSocket protocols."""
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
    transport: Any = getattr(_bound_to(send), "transport", None)
    unsent = _unsent_of(transport) if _has_buffer(transport) else _nothing_waits
    protocol = protocol_of_daphne(send)
    if protocol is None:
        return ServerAdapter(unsent=unsent)
    return ServerAdapter(True, unsent, _writer(protocol, transport))


def protocol_of_daphne(send: Any) -> Any:
    """The protocol of the connection that this ASGI `send` of daphne belongs to; None for another
    server's."""
    protocol = _bound_to(send)
    if protocol is None or (_named(type(protocol)), _named(send.func)) != _DAPHNE:
        return None
    return protocol


def protocol_of_uvicorn(send: Any) -> Any:
    """The protocol of the connection that this ASGI `send` of plain uvicorn belongs to; None for
    another server's."""
    protocol = getattr(send, "__self__", None)
    return protocol if _named(type(protocol)) == UVICORN else None


def _bound_to(send: Any) -> Any:
    """What daphne binds its `send` to: the protocol of the connection."""
    return send.args[0] if isinstance(send, functools.partial) and send.args else None


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
    make_frame = getattr(_bound_to(send), "sendCloseFrame", None)
    if make_frame is not None:
        make_frame(code=int(code), reasonUtf8=shown.encode(), isReply=False)
        return
    own = protocol_of_uvicorn(send)
    if own is not None:
        # uvicorn waits without end for a client that does not read its close frame.
        own.loop.call_later(_UNREAD_SECONDS, own.transport.abort)
    await send({"type": "websocket.close", "code": int(code), "reason": shown})


def answer_refusal(
    send: Any, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> None:
    """Have a server that refuses a handshake by a bare 403 alone, as daphne does, answer with this
    instead. The handshake is still to be refused."""
    protocol = protocol_of_daphne(send)
    if not all(hasattr(protocol, name) for name in ("sendHttpErrorResponse", "sendData")):
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
