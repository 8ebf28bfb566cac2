"""What is known of servers: which are recognised, and that daphne's shortcut keeps every byte.

The transport is Twisted's own on a real pair of sockets; only the reactor is played, so that a test
says when it comes to write.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from daphne.server import Server
from daphne.ws_protocol import WebSocketFactory
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import main, tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.python import failure

from realtime.carrier import UNKNOWN, carrier_of
from realtime.prepared import websocket_frame
from tests.waiting import PATIENCE_SECONDS

OPEN, CLOSING = 3, 2


class Reactor:
    """Knows who wants to write, and lets them."""

    def __init__(self) -> None:
        self.writers: set[Any] = set()

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def addReader(self, reader: Any) -> None:
        """Nothing is read here."""

    removeReader = addReader

    def turn(self) -> None:
        for writer in tuple(self.writers):
            why = writer.doWrite()
            if why:
                self.writers.discard(writer)
                writer.connectionLost(failure.Failure(why))


# By their names alone are daphne's protocol and its kin recognised.
Protocol = type("WebSocketProtocol", (SimpleNamespace,), {"__module__": "daphne.ws_protocol"})


class Connection:
    """A connection of daphne's, and the client at its other end."""

    def __init__(self, kind: Any = tcp.Server) -> None:
        ours, self.client = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        self.client.setblocking(False)
        self.reactor = Reactor()
        # What `Server` does beyond a `Connection` is about addresses, which a pair has none of.
        self.transport: Any = kind.__new__(kind)
        self.protocol = Protocol(
            state=OPEN,
            STATE_OPEN=OPEN,
            send_queue=[],
            transport=self.transport,
            connectionLost=lambda reason: None,
        )
        reactor: Any = self.reactor
        tcp.Connection.__init__(self.transport, ours, self.protocol, reactor)
        self.transport.connected = 1

    async def handle_reply(self, protocol: Any, message: Any) -> None:
        """Daphne's `send`, of which nothing is asked here but whom it belongs to."""

    def asgi_send(self) -> Any:
        return functools.partial(self.handle_reply, self.protocol)

    def read(self, most: int) -> bytes:
        try:
            return self.client.recv(most)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        if self.transport.connected:
            self.transport.connectionLost(failure.Failure(main.CONNECTION_DONE))
        self.client.close()


@contextmanager
def connected(kind: Any = tcp.Server) -> Iterator[Connection]:
    connection = Connection(kind)
    try:
        yield connection
    finally:
        connection.close()


deeds = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.integers(1, 20_000)),
        st.tuples(st.just("send"), st.integers(1, 20_000)),
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.just("read"), st.integers(1, 30_000)),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(deeds)
def test_whatever_a_client_takes_and_when_it_gets_every_byte_in_order(
    deeds: list[tuple[str, int]],
) -> None:
    with connected() as connection:
        carrier = carrier_of(connection.asgi_send())
        assert carrier.write is not None
        sent, got = bytearray(), bytearray()
        for number, (deed, size) in enumerate(deeds):
            data = bytes([number]) * size
            if deed == "turn":
                connection.reactor.turn()
            elif deed == "read":
                got += connection.read(size)
            else:
                sent += data
                if deed == "send":
                    connection.transport.write(data)
                else:
                    assert carrier.write(data)
            assert len(got) + carrier.unsent() <= len(sent)
        while len(got) < len(sent):
            connection.reactor.turn()
            got += connection.read(1_000_000)
        assert got == sent
        assert carrier.unsent() == 0
        assert connection.read(1) == b""


def test_a_frame_needs_no_turn_of_the_reactor_while_nothing_waits() -> None:
    with connected() as connection:
        write = carrier_of(connection.asgi_send()).write
        assert write is not None
        assert write(b"one")
        assert write(b"two")
        assert connection.read(10) == b"onetwo"
        assert not connection.reactor.writers


def test_nothing_overtakes_what_waits_in_the_transport() -> None:
    with connected() as connection:
        write = carrier_of(connection.asgi_send()).write
        assert write is not None
        connection.transport.write(b"pong")
        assert write(b"frame")
        assert connection.read(10) == b""
        connection.reactor.turn()
        assert connection.read(10) == b"pongframe"


def test_nothing_follows_a_close_frame() -> None:
    with connected() as connection:
        write = carrier_of(connection.asgi_send()).write
        assert write is not None
        connection.protocol.state = CLOSING
        assert not write(b"frame")
        assert connection.read(10) == b""


def test_nothing_overtakes_what_autobahn_keeps_back() -> None:
    with connected() as connection:
        write = carrier_of(connection.asgi_send()).write
        assert write is not None
        connection.protocol.send_queue.append((b"piece", True))
        assert not write(b"frame")
        assert connection.read(10) == b""


def test_a_client_that_is_gone_is_left_to_the_transport_to_find_out() -> None:
    with connected() as connection:
        write = carrier_of(connection.asgi_send()).write
        assert write is not None
        connection.client.close()
        write(b"frame")
        connection.reactor.turn()
        assert connection.transport.disconnected
        # And its descriptor may be another connection's by now.
        connection.protocol.state = CLOSING
        assert not write(b"frame")


def test_a_socket_file_carries_bytes_as_they_are_too() -> None:
    with connected(unix.Server) as connection:
        write = carrier_of(connection.asgi_send()).write
        assert write is not None
        assert write(b"frame")


def tls(connection: Connection) -> None:
    connection.transport.TLS = True
    connection.protocol.write = connection.transport._tempDataBuffer.append


def wrapped(connection: Connection) -> None:
    """As `haproxy:` endpoints are: the wrapper knows what to send before anything else."""
    connection.protocol.transport = SimpleNamespace(
        write=connection.transport.write, socket=connection.transport.socket
    )


@pytest.mark.parametrize("change", [tls, wrapped])
def test_where_bytes_are_not_sent_as_they_are_the_transport_is_asked(
    change: Callable[[Connection], None],
) -> None:
    with connected() as connection:
        change(connection)
        write = carrier_of(connection.asgi_send()).write
        assert write is not None
        assert write(b"frame")
        assert connection.read(10) == b""
        assert connection.transport._tempDataBuffer == [b"frame"]


def by_a_middleware(connection: Connection) -> Any:
    async def send(message: Any) -> None:
        await connection.handle_reply(connection.protocol, message)

    return send


def of_another_daphne(connection: Connection) -> Any:
    del connection.protocol.send_queue
    return connection.asgi_send()


def of_no_connection(connection: Connection) -> Any:
    connection.protocol.transport = None
    return connection.asgi_send()


@pytest.mark.parametrize("sends", [by_a_middleware, of_another_daphne, of_no_connection])
def test_what_is_not_as_it_is_known_gets_its_messages_by_asgi(
    sends: Callable[[Connection], Any],
) -> None:
    with connected() as connection:
        assert carrier_of(sends(connection)).write is None


@pytest.mark.parametrize("send", [functools.partial(print), functools.partial(print, "x"), print])
def test_of_a_server_nobody_knows_nothing_is_known(send: Any) -> None:
    carrier = carrier_of(send)
    assert carrier == UNKNOWN
    assert carrier.unsent() == 0


async def test_a_connection_of_daphne_as_it_is_today_has_all_that_is_needed() -> None:
    """The acceptance tests would pass without the shortcut, only slower."""
    sends: asyncio.Queue[Any] = asyncio.Queue()
    over = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        sends.put_nowait(send)
        await over.wait()

    server = Server(application, endpoints=["tcp:0"])
    server.connections = {}
    factory = WebSocketFactory(server, server="daphne")
    factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
    with connected() as connection:
        protocol = factory.buildProtocol(None)
        protocol._raw_query_string = b""
        connection.transport.protocol = protocol
        connection.transport.getPeer = connection.transport.getHost = lambda: UNIXAddress("x")
        protocol.makeConnection(connection.transport)
        protocol.dataReceived(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        send = await asyncio.wait_for(sends.get(), PATIENCE_SECONDS)
        carrier = carrier_of(send)
        assert carrier.eager
        assert carrier.write is not None
        # The answer to the handshake comes first.
        assert carrier.unsent() > 0
        assert carrier.write(websocket_frame("early"))
        connection.reactor.turn()
        answer = connection.read(10_000)
        assert answer.startswith(b"HTTP/1.1 101")
        assert answer.endswith(websocket_frame("early"))
        assert carrier.unsent() == 0
        assert carrier.write(websocket_frame("frame"))
        assert connection.read(100) == websocket_frame("frame")
        # The same bytes as daphne would have made of it.
        await send({"type": "websocket.send", "text": "frame"})
        connection.reactor.turn()
        assert connection.read(100) == websocket_frame("frame")
        await send({"type": "websocket.close", "code": 4000})
        assert not carrier.write(websocket_frame("late"))
        over.set()
