"""What is known of the server behind an ASGI `send`, beyond what ASGI says.

A server that pushes back makes `send` wait, and nobody need ask. Daphne takes everything at once
into its transport's buffer, without bound, so there the buffer itself is looked at. And daphne is
handed frames instead of messages: by `send` each is framed anew for each socket, what is larger
than what daphne takes from clients (1 MiB) is an error, and Twisted never writes without having
asked the selector before and after. A frame that is made already, put into a socket whose transport
holds nothing, costs an eighth of that (`benchmarks.fanout --only daphne`).

That is not part of any interface. Each thing is used where all that it needs is found as expected;
where anything is not, or a middleware has put itself between, messages go by ASGI alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Their `send` awaits nothing but a transport that is full, and asks for no current task.
_PLAIN = (
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvicorn.protocols.websockets.wsproto_impl",
)
_DAPHNE = "daphne.ws_protocol"
# Those of connections that carry bytes as they are. TLS has others, and so have wrappers.
_BARE = ("twisted.internet.tcp", "twisted.internet.unix")


def _nothing_waits() -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Carrier:
    """A server, as far as one socket of it is concerned. The default is one of which nothing is
    known."""

    #: `send` may be begun by whoever has a frame, outside any task of its own.
    eager: bool = False
    #: Bytes that wait behind `send`.
    unsent: Callable[[], int] = _nothing_waits
    #: Sends a WebSocket frame as it is, in its turn; False where the message has to go by `send`.
    write: Callable[[bytes], bool] | None = None


UNKNOWN = Carrier()


def carrier_of(send: Any) -> Carrier:
    """What is known of the server this ASGI `send` belongs to. A doubt knows nothing."""
    if not isinstance(send, functools.partial):
        return Carrier(eager=type(getattr(send, "__self__", None)).__module__ in _PLAIN)
    # Daphne's `send` is bound to the protocol of the connection.
    protocol = send.args[0] if send.args else None
    if type(protocol).__module__ != _DAPHNE:
        return UNKNOWN
    transport: Any = getattr(protocol, "transport", None)
    write = _writer(protocol, transport)
    if not _has_buffer(transport):
        return Carrier(True, write=write)

    def unsent() -> int:
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen

    return Carrier(True, unsent, write)


def _has_buffer(transport: Any) -> bool:
    return all(hasattr(transport, name) for name in ("dataBuffer", "offset", "_tempDataLen"))


def _writer(protocol: Any, transport: Any) -> Callable[[bytes], bool] | None:
    known = all(hasattr(protocol, name) for name in ("state", "STATE_OPEN", "send_queue"))
    if not known or not hasattr(transport, "write"):
        return None
    is_open = protocol.STATE_OPEN
    bare = type(transport).__module__ in _BARE and _has_buffer(transport) and not transport.TLS
    # The socket and not its descriptor, which may be another's once it is closed.
    send = transport.socket.send if bare else None

    def write(frame: bytes) -> bool:
        if protocol.state != is_open or protocol.send_queue:
            # A close frame may have been sent, which nothing may follow.
            return False
        if send is not None and not (transport._tempDataLen or transport.dataBuffer):
            try:
                sent = send(frame)
            except OSError:
                # Full or broken: the transport finds out which.
                sent = 0
            if sent == len(frame):
                return True
            frame = frame[sent:]
        transport.write(frame)
        return True

    return write


def is_gone(error: BaseException) -> bool:
    """Whether a send failed because the client has left, which is nobody's fault.

    By the specification that is an OSError. Daphne lets through what autobahn raises, told here by
    its name: under another server there may be no autobahn.
    """
    return isinstance(error, OSError) or type(error).__name__ == "Disconnected"
