"""What is known of the server behind an ASGI `send`, beyond what ASGI says.

A server that pushes back makes `send` wait, and nobody need ask. Daphne takes everything at once
into its transport's buffer, without bound, so there the buffer itself is looked at. And daphne is
handed frames instead of messages: by `send` each is framed anew for each socket, what is larger
than what daphne takes from clients (1 MiB) is an error, and Twisted never writes without having
asked the selector before and after. A frame that is made already, put into a socket whose transport
holds nothing, costs an eighth of that (`benchmarks.fanout --only daphne`). What comes for a socket
later in the same turn of the loop is left to the transport, which joins it to one write.

That is not part of any interface. Each thing is used where all that it needs is found as expected;
where anything is not, or a middleware has put itself between, messages go by ASGI alone.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

# Their `send` awaits nothing but a transport that is full, and asks for no current task.
_PLAIN = (
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvicorn.protocols.websockets.wsproto_impl",
)
_DAPHNE = ("daphne.ws_protocol", "WebSocketProtocol"), ("daphne.server", "Server.handle_reply")
# Those of connections that carry bytes as they are. TLS has others, and so have wrappers.
_BARE = ("twisted.internet.tcp", "twisted.internet.unix")


def _nothing_waits() -> int:
    return 0


@dataclass(frozen=True, slots=True)
class ServerAdapter:
    """A server, as far as one socket of it is concerned. The default is one of which nothing is
    known."""

    #: `send` may be begun by whoever has a frame, outside any task of its own.
    eager: bool = False
    #: Bytes that wait behind `send`.
    unsent: Callable[[], int] = _nothing_waits
    #: Sends a WebSocket frame as it is, in its turn; False where the message has to go by `send`.
    write: Callable[[bytes], bool] | None = None


UNKNOWN = ServerAdapter()


class _TickCounter:
    """Counts the turns of an event loop in which anything is written."""

    def __init__(self) -> None:
        self._number = 0
        self._over = True

    def now(self) -> int:
        """The number of this one."""
        if self._over:
            self._over = False
            self._number += 1
            asyncio.get_running_loop().call_soon(self._pass)
        return self._number

    def _pass(self) -> None:
        self._over = True


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _TickCounter] = WeakKeyDictionary()


def carrier_of(send: Any) -> ServerAdapter:
    """What is known of the server this ASGI `send` belongs to. A doubt knows nothing.

    Called on the loop of the server.
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
    turns = _turns.setdefault(loop, _TickCounter())
    is_open = protocol.STATE_OPEN
    bare = type(transport).__module__ in _BARE and _has_buffer(transport) and not transport.TLS
    # The socket and not its descriptor, which may be another's once it is closed. Twisted forgets
    # the socket of a client that has gone.
    socket = getattr(transport, "socket", None) if bare else None
    last = 0

    def write(frame: bytes) -> bool:
        nonlocal last
        if protocol.state != is_open or protocol.send_queue:
            # A close frame may have been sent, which nothing may follow.
            return False
        turn = turns.now()
        if socket is None or turn == last or transport._tempDataLen or transport.dataBuffer:
            transport.write(frame)
            return True
        last = turn
        try:
            sent = socket.send(frame)
        except OSError:
            # Full or broken: the transport finds out which.
            sent = 0
        if sent != len(frame):
            try:
                transport.write(frame[sent:])
            except Exception:
                # With half a frame sent, nothing that follows could be read.
                transport.abortConnection()
                raise
        return True

    return write


def is_gone(error: BaseException) -> bool:
    """Whether a send failed because the client has left, which is nobody's fault.

    By the specification that is an OSError. Daphne lets through what autobahn raises, told here by
    its name: under another server there may be no autobahn.
    """
    return isinstance(error, OSError) or type(error).__name__ == "Disconnected"
