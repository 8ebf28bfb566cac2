"""Limits for the bodies of HTTP requests, under uvicorn.

uvicorn waits for a body without end, and Django keeps one in memory up to
`FILE_UPLOAD_MAX_MEMORY_SIZE`, beyond that on disk. Here a body has to arrive at some rate, and what
bodies that are not complete have in memory is bounded for an address and for the process, as
messages of WebSockets are (`inbound_bytes`). A body that an application does not read is not its
client's fault: the time does not count.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from auth_rls.access.record_limit import RecordLimit
from realtime.delivery.expected import is_expected
from realtime.delivery.inbound import payer_of
from realtime.delivery.inbound_bytes import SMALL_BYTES, InboundBytes, InboundHolding, weakly

logger = logging.getLogger(__name__)

#: Seconds that a client may take for a body, or send nothing of one; and the bytes that give it
#: another second.
BODY_SECONDS = 30.0
BYTES_PER_SECOND = 500
#: Bytes of incomplete bodies in memory, for an address and for a process.
ADDRESS_BYTES = 33_554_432
TOTAL_BYTES = 134_217_728
# How often a body is looked at. One that is not complete by the first look is slow, and counts as
# the smallest holding however little of it has come: its connection and its request take room too.
_LOOK_SECONDS = 5.0

# Lines in the log of each kind, in so many seconds.
_WARNINGS = 5
_WARNING_SECONDS = 60.0
_TOO_SLOW = "it came too slowly"
_TOO_MUCH = "bodies of its address that are not complete take too much memory"

_UNBOUNDED = "take time and memory for bodies of requests"
# What is used of uvicorn's protocols, and of a request in one.
_CALLED = ("data_received", "on_response_complete")
_STATE = ("client", "cycle", "flow", "loop", "transport")
_CYCLE = ("body", "more_body", "response_complete", "scope")
# The attribute of a protocol that holds its incomplete body.
_BODY = "_rowcast_body"


def limit_bodies_of(
    protocol: Any,
    seconds: float = BODY_SECONDS,
    look_seconds: float = _LOOK_SECONDS,
    address_bytes: int = ADDRESS_BYTES,
) -> None:
    """Close each connection of this class of uvicorn's protocols whose body takes longer than
    `seconds` and `BYTES_PER_SECOND` allow, or has too much in memory."""
    if not is_expected(protocol, _CALLED, _UNBOUNDED):
        return
    bounds = _Bounds(seconds, look_seconds, InboundBytes(address_bytes, TOTAL_BYTES))
    data_received = protocol.data_received
    response_complete = protocol.on_response_complete

    def counted(self: Any, data: bytes) -> None:
        data_received(self, data)
        count(self, len(data))

    def followed(self: Any) -> None:
        # With h11 the next request of the same packet begins here, and perhaps nothing more comes.
        response_complete(self)
        count(self, 0)

    def count(self: Any, size: int) -> None:
        body: _Body | None = vars(self).get(_BODY)
        cycle = self.cycle
        if cycle is None or not cycle.more_body or cycle.response_complete:
            if body is not None:
                body.end()
                delattr(self, _BODY)
        elif body is not None and body.cycle is cycle:
            body.grow(size)
        elif is_expected(self, _STATE, _UNBOUNDED) and is_expected(cycle, _CYCLE, _UNBOUNDED):
            if body is not None:
                body.end()
            setattr(self, _BODY, _Body(self, bounds))

    protocol.data_received, protocol.on_response_complete = counted, followed


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The bounds for all bodies of one class of protocols."""

    seconds: float
    look_seconds: float
    ledger: InboundBytes
    warnings: RecordLimit = field(default_factory=lambda: RecordLimit(_WARNINGS, _WARNING_SECONDS))


class _Body:
    """The body of one request, until it is complete."""

    def __init__(self, protocol: Any, bounds: _Bounds) -> None:
        self.cycle = protocol.cycle
        self._protocol = weakref.ref(protocol)
        self._bounds = bounds
        self._loop = protocol.loop
        self._began = self._last = self._loop.time()
        self._slow = False
        self._holding: InboundHolding | None = None
        self._size = 0
        self._timer = self._loop.call_later(bounds.look_seconds, self._look)
        self.grow(len(self.cycle.body))

    def end(self) -> None:
        """The body is complete, or its connection is gone."""
        self._timer.cancel()
        self._holding = None

    def grow(self, size: int) -> None:
        """So many bytes more have come."""
        self._size += size
        if size:
            self._last = self._loop.time()
        # Beyond, it is on disk.
        held = self._size if self._size <= settings.FILE_UPLOAD_MAX_MEMORY_SIZE else 0
        if self._slow:
            held = max(held, SMALL_BYTES + 1)
        if self._holding is None:
            if held <= SMALL_BYTES:
                return
            # Behind a proxy the request has the client's address.
            client = self.cycle.scope.get("client")
            account = payer_of(client, self).account
            self._holding = InboundHolding(self._bounds.ledger, account, weakly(self, _Body.close))
        if not self._holding.set(held):
            self.close(_TOO_MUCH)

    def _look(self) -> None:
        protocol = self._protocol()
        if protocol is None or protocol.transport.is_closing():
            self.end()
            return
        self._timer = self._loop.call_later(self._bounds.look_seconds, self._look)
        if protocol.flow.read_paused:
            # The application does not read.
            self._began += self._bounds.look_seconds
            self._last += self._bounds.look_seconds
            return
        self._slow = True
        now = self._loop.time()
        allowed = self._bounds.seconds + self._size / BYTES_PER_SECOND
        if now - self._began > allowed or now - self._last > self._bounds.seconds:
            self.close(_TOO_SLOW)
        else:
            self.grow(0)

    def close(self, why: str = _TOO_MUCH) -> None:
        """Close the connection of this body. `why` is for the log."""
        protocol = self._protocol()
        self.end()
        if protocol is not None:
            protocol.transport.abort()
            self._log(why)

    def _log(self, why: str) -> None:
        scope = self.cycle.scope
        suppressed = self._bounds.warnings.admit(why, self._loop.time())
        if suppressed is None:
            return
        more = f"; {suppressed} more since the last such line" if suppressed else ""
        logger.warning(
            "the body of a request of %s to %s was cut off after %d bytes: %s%s",
            (scope.get("client") or ("a client",))[0],
            scope.get("path", ""),
            self._size,
            why,
            more,
            extra={"action": "body_cut_off"},
        )
