"""A connection that was closed while its client still sends is read on, so that the client gets its
close frame."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from twisted.internet import tcp

from realtime.delivery.lingering import Lingering, linger_daphne, linger_uvicorn
from realtime.util.token_bucket import Rate


def test_so_many_connections_at_once_are_given_longer_than_all_others() -> None:
    lingering = Lingering(Rate(1.0, 2.0))
    long, same, short = (lingering.seconds(0.0) for _ in range(3))
    assert long == same > short > 0
    assert lingering.seconds(1.0) == long


class Transport:
    """What is asked of asyncio's transports and of Twisted's."""

    TLS = False

    def __init__(self) -> None:
        self.paused = True
        self.ended = self.aborted = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    loseWriteConnection = write_eof

    def resume_reading(self) -> None:
        self.paused = False

    resumeProducing = resume_reading

    def abort(self) -> None:
        self.aborted = True

    abortConnection = abort


class Bare(Transport):
    """One whose bytes are not encrypted."""


Bare.__module__ = tcp.__name__


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Protocol:
    """What is used of a protocol of daphne, or of uvicorn."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.closeHandshakeTimeoutCall: Timer | None = Timer()
        self.close_timer: Any = None
        self.read_paused = True

    def dataReceived(self, data: bytes) -> None:
        raise AssertionError("parsed")


async def test_a_socket_of_uvicorn_is_read_until_its_client_closes() -> None:
    one: Any = Protocol(Transport())
    linger_uvicorn(one)
    assert (one.transport.paused, one.transport.ended, one.transport.aborted) == (
        False,
        True,
        False,
    )
    # uvicorn cancels it when the connection is lost.
    one.close_timer.cancel()


async def test_a_socket_of_daphne_is_read_and_what_comes_is_dropped() -> None:
    one: Any = Protocol(Bare())
    # autobahn closes the connection a second after its own close frame.
    timer = one.closeHandshakeTimeoutCall
    linger_daphne(one)
    one.dataReceived(b"more")
    assert timer.cancelled and one.closeHandshakeTimeoutCall is None
    assert (one.transport.paused, one.transport.ended, one.transport.aborted) == (
        False,
        True,
        False,
    )


@pytest.mark.parametrize("encrypted", ["by its own class", "after a while"])
async def test_no_half_of_an_encrypted_connection_is_closed(encrypted: str) -> None:
    transport = Transport() if encrypted == "by its own class" else Bare()
    transport.TLS = True
    linger_daphne(Protocol(transport))
    assert (transport.paused, transport.ended) == (False, False)
