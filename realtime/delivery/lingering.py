"""What becomes of a connection that was closed while its client still sends.

A connection that is closed over unread bytes is reset, and the client may lose the close frame. So
what comes is read and dropped until the client closes too, or for some seconds. The sending
direction ends after the close frame, which tells clients that nothing more comes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from realtime.util.token_bucket import Rate, TokenBucket

# A client that is slow, or has sent much that is still under way, needs seconds to come to the
# close frame.
_SECONDS = 5.0
# Those beyond a number get less, since each costs the server what it sends meanwhile.
_FEW_SECONDS = 1.0
_PATIENT = Rate(20.0, 100.0)
# Transports of Twisted that carry bytes unencrypted. Half of a TLS connection cannot be closed.
_BARE = ("twisted.internet.tcp", "twisted.internet.unix")


class Lingering:
    """How long the connections of a process are read after their close frame. At most `patient` of
    them are given five seconds, all others one second."""

    def __init__(self, patient: Rate = _PATIENT) -> None:
        self._patient = TokenBucket(patient)

    def seconds(self, now: float) -> float:
        """For one more connection. `now` is a monotonic time in seconds."""
        return _SECONDS if self._patient.take(now) else _FEW_SECONDS


_lingering = Lingering()


def linger_uvicorn(protocol: Any) -> None:
    """Read on, on a socket of uvicorn whose close frame was written. Its parser drops what comes,
    and its transport closes when the client does."""
    transport, loop = protocol.transport, protocol.loop
    if transport.can_write_eof():
        transport.write_eof()
    protocol.read_paused = False
    transport.resume_reading()
    protocol.close_timer = loop.call_later(_lingering.seconds(loop.time()), transport.abort)


def linger_daphne(protocol: Any) -> None:
    """Read on, on a socket of daphne whose close frame was written, and drop what comes."""
    transport, loop = protocol.transport, asyncio.get_running_loop()
    # A second error in the data that follows would drop the connection with the close frame.
    protocol.processData = _nothing_more
    protocol.dataReceived = _ignore
    # autobahn's own time for a client that does not answer its close frame, a second.
    timer = getattr(protocol, "closeHandshakeTimeoutCall", None)
    if timer is not None:
        timer.cancel()
        protocol.closeHandshakeTimeoutCall = None
    if hasattr(transport, "resumeProducing"):
        transport.resumeProducing()
    if type(transport).__module__ in _BARE and not transport.TLS:
        transport.loseWriteConnection()
    loop.call_later(_lingering.seconds(loop.time()), transport.abortConnection)


def _nothing_more() -> bool:
    return False


def _ignore(data: bytes) -> None:
    return None
