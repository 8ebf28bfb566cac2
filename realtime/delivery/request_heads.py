"""A time limit for the heads of HTTP requests under uvicorn, which waits for them without end.

A handshake's head is one too: it is read before there is a WebSocket. uvicorn has no setting and no
interface for this: where its protocols are not as expected, nothing is changed.
"""

from __future__ import annotations

import weakref
from importlib import import_module
from typing import Any

#: Seconds that a client may take for the head of a request.
HEAD_SECONDS = 10.0

_PROTOCOLS = (
    ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol"),
    ("uvicorn.protocols.http.h11_impl", "H11Protocol"),
)
# Stands for a request that is being served, or for the pause that uvicorn itself limits.
_BUSY = object()


def limit_request_heads() -> None:
    """Limit the heads of all connections that uvicorn takes from now on. May be called again."""
    for module, name in _PROTOCOLS:
        try:
            protocol = getattr(import_module(module), name)
        except ImportError:
            # One of the two is optional.
            continue
        if not hasattr(protocol, "_rowcast_limits_heads"):
            protocol._rowcast_limits_heads = True
            limit_heads_of(protocol, HEAD_SECONDS)


def limit_heads_of(protocol: Any, seconds: float) -> None:
    """Close each connection of this class of protocols whose head takes longer."""
    connection_made = protocol.connection_made

    def timed(self: Any, transport: Any) -> None:
        connection_made(self, transport)
        self.loop.call_later(seconds, _end_if_waiting, weakref.ref(self), None, seconds)

    protocol.connection_made = timed


def _end_if_waiting(connection: weakref.ref[Any], earlier: object, seconds: float) -> None:
    """Close a connection that has waited for a head since the request `earlier`; else look again
    later."""
    protocol = connection()
    if protocol is None or protocol not in protocol.connections:
        # Closed, or a WebSocket by now.
        return
    cycle: Any = protocol.cycle
    paused = protocol.timeout_keep_alive_task is not None
    if paused or not (cycle is None or cycle.response_complete):
        cycle = _BUSY
    elif cycle is earlier:
        protocol.transport.abort()
        return
    protocol.loop.call_later(seconds, _end_if_waiting, connection, cycle, seconds)
