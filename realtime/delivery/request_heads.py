"""Limits for the heads of HTTP requests, under uvicorn and daphne.

The head of a WebSocket's handshake is one of them. uvicorn waits for a head without end, daphne as
long as a byte comes now and then. With httptools, uvicorn also takes a head of any size; with h11
it has a limit of its own, and so has daphne. Bodies are limited in `request_bodies`, and under
daphne, which has them on disk beyond 100 KB, in time alone and here. Neither server has a setting
or an interface for this; where their objects are not as expected, nothing is changed, and a line of
the log says so.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from functools import cache
from importlib import import_module
from typing import Any

from realtime.delivery.expected import is_expected
from realtime.delivery.request_bodies import BODY_SECONDS, BYTES_PER_SECOND, limit_bodies_of

#: Seconds that a client may take for the head of a request.
HEAD_SECONDS = 10.0
#: Bytes of a head. h11's limit is the same.
HEAD_BYTES = 65_536

_HTTPTOOLS = ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol")
_PROTOCOLS = (_HTTPTOOLS, ("uvicorn.protocols.http.h11_impl", "H11Protocol"))
# What is used of uvicorn's protocols, and of httptools'.
_STATE = ("connections", "cycle", "loop", "timeout_keep_alive_task")
_CALLED_BY_HTTPTOOLS = ("data_received", "on_headers_complete", "on_message_begin")
# The attribute that holds the size of a head that is not complete.
_HEAD = "_rowcast_head"
# The class of daphne's factories of connections, and its attribute where they are all limited.
_FACTORY = "HTTPFactory"
_LIMITED = "rowcast_limited"
# Stands for a request that is being served, or for the pause that uvicorn itself limits.
_BUSY = object()


@cache
def limit_request_heads() -> None:
    """Limit the heads and bodies of all connections that uvicorn takes from now on. A second call
    does nothing."""
    for name, protocols in _PROTOCOLS:
        try:
            module = import_module(name)
        except ImportError:
            # One of the two is optional.
            continue
        if not is_expected(module, (protocols,), "take time for heads of requests"):
            continue
        protocol = getattr(module, protocols)
        limit_heads_of(protocol, HEAD_SECONDS)
        if (name, protocols) == _HTTPTOOLS and is_expected(
            protocol, _CALLED_BY_HTTPTOOLS, "send large heads of requests"
        ):
            limit_head_bytes_of(protocol, HEAD_BYTES)
        limit_bodies_of(protocol)


def limit_head_bytes_of(protocol: Any, most: int) -> None:
    """Close each connection of this class of protocols whose head is incomplete after more than
    `most` bytes. The class takes what httptools calls: one packet is parsed whole."""
    begin, complete = protocol.on_message_begin, protocol.on_headers_complete
    data_received = protocol.data_received

    def counted_begin(self: Any) -> None:
        setattr(self, _HEAD, 0)
        begin(self)

    def counted_complete(self: Any) -> None:
        setattr(self, _HEAD, None)
        complete(self)

    def counted_data_received(self: Any, data: bytes) -> None:
        data_received(self, data)
        size = vars(self).get(_HEAD)
        if size is None:
            return
        setattr(self, _HEAD, size + len(data))
        if size + len(data) > most:
            self.transport.abort()

    protocol.on_message_begin, protocol.on_headers_complete = counted_begin, counted_complete
    protocol.data_received = counted_data_received


def limit_heads_of(protocol: Any, seconds: float) -> None:
    """Close each connection of this class of protocols whose head takes longer."""
    connection_made = protocol.connection_made

    def timed(self: Any, transport: Any) -> None:
        connection_made(self, transport)
        if is_expected(self, _STATE, "take time for heads of requests"):
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


@cache
def limit_first_daphne_heads(seconds: float = HEAD_SECONDS) -> None:
    """Limit the heads and bodies of all connections that daphne takes in this process. Called
    before it listens; a second call does nothing."""
    module = sys.modules.get("daphne.http_protocol")
    if module is None or not is_expected(module, (_FACTORY,), "take time for heads of requests"):
        return
    factories = getattr(module, _FACTORY)
    build = factories.buildProtocol

    def timed(self: Any, address: Any) -> Any:
        protocol = build(self, address)
        # Those of which `limit_daphne_heads` was told before.
        if "buildProtocol" not in vars(self):
            _Connection.limit(protocol, seconds, BODY_SECONDS)
        return protocol

    factories.buildProtocol = timed
    setattr(factories, _LIMITED, True)


def limit_daphne_heads(
    factory: Any, seconds: float = HEAD_SECONDS, body_seconds: float = BODY_SECONDS
) -> None:
    """Limit the heads and bodies of all connections that this factory of daphne's makes from now
    on. May be called again; does nothing after `limit_first_daphne_heads`."""
    if factory is None or "buildProtocol" in vars(factory) or hasattr(factory, _LIMITED):
        return
    build = type(factory).buildProtocol
    here = weakref.ref(factory)

    def timed(address: Any) -> Any:
        found = here()
        protocol = None if found is None else build(found, address)
        _Connection.limit(protocol, seconds, body_seconds)
        return protocol

    factory.buildProtocol = timed


class _Connection:
    """The heads and bodies of one HTTP connection of daphne."""

    @classmethod
    def limit(cls, protocol: Any, seconds: float, body_seconds: float) -> None:
        """Limit the heads and bodies of this connection, if it is as expected."""
        channel = getattr(protocol, "_channel", protocol)
        if hasattr(channel, "allHeadersReceived") and hasattr(channel, "requests"):
            cls(protocol, channel, seconds, body_seconds)

    def __init__(self, protocol: Any, channel: Any, seconds: float, body_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol, self._channel = weakref.ref(protocol), weakref.ref(channel)
        self._seconds = seconds
        self._most_body_seconds = body_seconds
        self._last = self._loop.time()
        # How long the last request's body was seen incomplete.
        self._body_seconds = 0.0
        channel.allHeadersReceived = self._complete
        self._loop.call_later(seconds, self._look)

    def _complete(self) -> None:
        self._last = self._loop.time()
        self._body_seconds = 0.0
        channel = self._channel()
        if channel is not None:
            type(channel).allHeadersReceived(channel)

    def _look(self) -> None:
        channel = self._channel()
        transport: Any = getattr(channel, "transport", None)
        if channel is None or getattr(transport, "protocol", None) is not self._protocol():
            # Closed, or a WebSocket by now.
            return
        # A request has no content before its head is complete.
        waiting = all(request.content is None for request in channel.requests)
        late = waiting and self._loop.time() - self._last >= self._seconds
        if late or self._has_slow_body(channel):
            transport.abortConnection()
        else:
            self._loop.call_later(self._seconds, self._look)

    def _has_slow_body(self, channel: Any) -> bool:
        """Whether the last request's body has taken longer than it may, by the looks at it."""
        request = channel.requests[-1] if channel.requests else None
        content = getattr(request, "content", None)
        # The decoder of a body is there until the body is complete.
        if content is None or getattr(channel, "_transferDecoder", None) is None:
            return False
        self._body_seconds += self._seconds
        return self._body_seconds > self._most_body_seconds + content.tell() / BYTES_PER_SECOND
