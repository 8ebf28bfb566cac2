"""What is known of servers: which are recognised, and that daphne's shortcut keeps every byte.

The transport is Twisted's own on a real pair of sockets; only the reactor is played, so that a test
says when it comes to write.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
from daphne.server import Server
from daphne.ws_protocol import WebSocketFactory
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import main, tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python import failure

from realtime.delivery.frame import websocket_frame
from realtime.delivery.server_adapter import UNKNOWN, adapter_of
from tests.support.waiting import PATIENCE_SECONDS

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

    def callLater(self, delay: float, what: Callable[..., None], *arguments: Any) -> None:
        what(*arguments)

    def run_ready(self) -> None:
        for writer in tuple(self.writers):
            why = writer.doWrite()
            if why:
                self.writers.discard(writer)
                writer.connectionLost(failure.Failure(why))


class Protocol(SimpleNamespace):
    """Stands for daphne's, which is recognised by its name."""

    __module__ = "daphne.ws_protocol"
    __qualname__ = "WebSocketProtocol"


class Connection:
    """A connection of daphne's, and the client at its other end."""

    def __init__(self, kind: Any = tcp.Server) -> None:
        ours, self.client = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        self.client.setblocking(False)
        self.reactor = Reactor()
        # What `Server` does beyond a `Connection` is about addresses, which a pair has none of.
        self.transport: Any = kind.__new__(kind)
        self.protocol: Any = Protocol(
            state=OPEN,
            STATE_OPEN=OPEN,
            send_queue=[],
            transport=self.transport,
            connectionLost=lambda reason: None,
        )
        reactor: Any = self.reactor
        protocol: Any = self.protocol
        tcp.Connection.__init__(self.transport, ours, protocol, reactor)
        self.transport.connected = 1

    def asgi_send(self) -> Any:
        return functools.partial(MethodType(Server.handle_reply, self), self.protocol)

    async def next_iteration(self) -> None:
        """Lets the reactor and the event loop run what is ready."""
        self.reactor.run_ready()
        await asyncio.sleep(0)

    def read(self, most: int = 1_000_000) -> bytes:
        try:
            return self.client.recv(most)
        except BlockingIOError:
            return b""

    def lose(self) -> None:
        if self.transport.connected:
            self.transport.connectionLost(failure.Failure(main.CONNECTION_DONE))


@contextmanager
def connected(kind: Any = tcp.Server) -> Iterator[Connection]:
    connection = Connection(kind)
    try:
        yield connection
    finally:
        connection.lose()
        connection.client.close()


def writer_of(connection: Connection) -> Callable[[bytes], bool]:
    write = adapter_of(connection.asgi_send()).write
    assert write is not None
    return write


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
    async def play(connection: Connection) -> None:
        adapter = adapter_of(connection.asgi_send())
        assert adapter.write is not None
        sent, got = bytearray(), bytearray()
        for number, (deed, size) in enumerate(deeds):
            data = bytes([number]) * size
            if deed == "turn":
                await connection.next_iteration()
            elif deed == "read":
                got += connection.read(size)
            else:
                sent += data
                if deed == "send":
                    connection.transport.write(data)
                else:
                    assert adapter.write(data)
            assert len(got) + adapter.unsent() <= len(sent)
        for _ in range(1_000):
            await connection.next_iteration()
            got += connection.read()
        assert got == sent
        assert adapter.unsent() == 0

    with connected() as connection:
        asyncio.run(play(connection))


async def test_a_frame_needs_no_turn_of_the_reactor_while_nothing_waits() -> None:
    with connected() as connection:
        write = writer_of(connection)
        assert write(b"one")
        assert connection.read() == b"one"
        await asyncio.sleep(0)
        assert write(b"two")
        assert connection.read() == b"two"
        assert not connection.reactor.writers


async def test_what_comes_in_the_same_turn_is_joined_by_the_transport() -> None:
    with connected() as connection, connected() as other:
        write, write_to_other = writer_of(connection), writer_of(other)
        for frame in (b"one", b"two", b"three"):
            assert write(frame)
        assert connection.read() == b"one"
        # The first of another socket is not the second of this one.
        assert write_to_other(b"first")
        assert other.read() == b"first"
        await connection.next_iteration()
        assert connection.read() == b"twothree"


async def test_nothing_overtakes_what_waits_in_the_transport() -> None:
    with connected() as connection:
        write = writer_of(connection)
        connection.transport.write(b"pong")
        assert write(b"frame")
        assert connection.read() == b""
        await connection.next_iteration()
        assert connection.read() == b"pongframe"


async def test_nothing_comes_between_the_parts_of_what_was_too_much_at_once() -> None:
    with connected() as connection:
        write = writer_of(connection)
        large = b"x" * 200_000
        connection.transport.write(large)
        await connection.next_iteration()
        # There is room again, and the rest of it has not been sent.
        got = connection.read()
        assert len(got) < len(large)
        assert write(b"frame")
        for _ in range(100):
            await connection.next_iteration()
            got += connection.read()
        assert got == large + b"frame"


def closing(protocol: Any) -> None:
    """A close frame has been sent, which nothing may follow."""
    protocol.state = CLOSING


def keeping_back(protocol: Any) -> None:
    """Autobahn has a piece of something that it has not handed to the transport."""
    protocol.send_queue.append((b"piece", True))


@pytest.mark.parametrize("change", [closing, keeping_back])
async def test_nothing_is_written_where_the_protocol_has_to_be_asked(
    change: Callable[[Any], None],
) -> None:
    with connected() as connection:
        write = writer_of(connection)
        change(connection.protocol)
        assert not write(b"frame")
        await connection.next_iteration()
        assert connection.read() == b""


async def test_a_client_that_is_gone_is_left_to_the_transport_to_find_out() -> None:
    with connected() as connection:
        write = writer_of(connection)
        connection.client.close()
        assert write(b"frame")
        await connection.next_iteration()
        assert connection.transport.disconnected


async def test_nothing_goes_to_the_next_owner_of_a_closed_socket_s_descriptor() -> None:
    with connected() as connection:
        write = writer_of(connection)
        descriptor = connection.transport.fileno()
        connection.lose()
        heir, other = socket.socketpair()
        # Mostly it is the descriptor that was freed last.
        moved = heir.fileno() != descriptor
        if moved:
            os.dup2(heir.fileno(), descriptor)
        with heir, other:
            other.setblocking(False)
            write(b"secret")
            await connection.next_iteration()
            with pytest.raises(BlockingIOError):
                other.recv(10)
        if moved:
            os.close(descriptor)


async def test_a_client_that_left_before_it_was_let_in_is_nobodys_failure() -> None:
    with connected() as connection:
        connection.lose()
        adapter = adapter_of(connection.asgi_send())
        assert adapter.unsent() == 0
        if adapter.write is not None:
            adapter.write(b"frame")


async def test_half_a_frame_is_the_last_that_a_connection_gets() -> None:
    with connected() as connection:
        write = writer_of(connection)

        def broken(data: bytes) -> None:
            raise RuntimeError("the selector is broken")

        connection.transport.write = broken
        with pytest.raises(RuntimeError, match="selector"):
            write(b"x" * 1_000_000)
        assert connection.transport.disconnected


async def test_a_socket_file_carries_bytes_as_they_are_too() -> None:
    with connected(unix.Server) as connection:
        assert writer_of(connection)(b"frame")
        assert connection.read() == b"frame"


def tls(connection: Connection) -> None:
    connection.transport.TLS = True
    connection.protocol.write = connection.transport._tempDataBuffer.append


def wrapped(connection: Connection) -> None:
    """As `ssl:` and `haproxy:` endpoints have it. The wrapper looks like what it wraps."""
    wrapper: Any = ProtocolWrapper(WrappingFactory(Factory()), connection.protocol)
    wrapper.transport = connection.transport
    wrapper.write = connection.transport._tempDataBuffer.append
    assert wrapper.socket is connection.transport.socket
    connection.protocol.transport = wrapper


@pytest.mark.parametrize("change", [tls, wrapped])
async def test_where_bytes_are_not_sent_as_they_are_the_transport_is_asked(
    change: Callable[[Connection], None],
) -> None:
    with connected() as connection:
        change(connection)
        assert writer_of(connection)(b"frame")
        assert connection.read() == b""
        assert connection.transport._tempDataBuffer == [b"frame"]


def by_a_middleware(connection: Connection) -> Any:
    async def send(message: Any) -> None:
        """Says something else."""

    return send


def by_a_server_of_its_own(connection: Connection) -> Any:
    async def handle_reply(protocol: Any, message: Any) -> None:
        """Says something else."""

    return functools.partial(handle_reply, connection.protocol)


def of_a_protocol_of_its_own(connection: Connection) -> Any:
    class WebSocketProtocol(Protocol):
        """Frames in a way of its own."""

        __module__ = "project.daphne"

    connection.protocol.__class__ = WebSocketProtocol
    return connection.asgi_send()


def of_another_daphne(connection: Connection) -> Any:
    del connection.protocol.send_queue
    return connection.asgi_send()


@pytest.mark.parametrize(
    "sends",
    [by_a_middleware, by_a_server_of_its_own, of_a_protocol_of_its_own, of_another_daphne],
)
async def test_what_is_not_as_it_is_known_gets_its_messages_by_asgi(
    sends: Callable[[Connection], Any],
) -> None:
    with connected() as connection:
        assert adapter_of(sends(connection)).write is None


async def test_what_waits_is_known_of_a_protocol_that_is_not() -> None:
    with connected() as connection:
        adapter = adapter_of(of_a_protocol_of_its_own(connection))
        connection.transport.write(b"frame")
        assert adapter.unsent() == 5


@pytest.mark.parametrize("send", [functools.partial(print), functools.partial(print, "x"), print])
async def test_of_a_server_nobody_knows_nothing_is_known(send: Any) -> None:
    adapter = adapter_of(send)
    assert adapter == UNKNOWN
    assert adapter.unsent() == 0


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
        adapter = adapter_of(send)
        assert adapter.eager
        assert adapter.write is not None
        # The answer to the handshake comes first.
        assert adapter.unsent() > 0
        assert adapter.write(websocket_frame("early"))
        await connection.next_iteration()
        answer = connection.read()
        assert answer.startswith(b"HTTP/1.1 101")
        assert answer.endswith(websocket_frame("early"))
        assert adapter.unsent() == 0
        assert adapter.write(websocket_frame("frame"))
        assert connection.read() == websocket_frame("frame")
        # The same bytes as daphne would have made of it.
        await send({"type": "websocket.send", "text": "frame"})
        await connection.next_iteration()
        assert connection.read() == websocket_frame("frame")
        await send({"type": "websocket.close", "code": 4000})
        assert not adapter.write(websocket_frame("late"))
        over.set()
