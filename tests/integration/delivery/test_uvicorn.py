"""uvicorn with our protocol, in this process: ordinary applications, and those that take a line."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode

from realtime.delivery.client_frames import bound_frames
from realtime.delivery.direct_outbox import DirectOutbox
from realtime.delivery.frame import SharedFrame
from realtime.process.hub import hub
from realtime.server import EXTENSION, FanoutProtocol
from tests.support.socket_client import application as realtime_application
from tests.support.socket_client import db
from tests.support.waiting import PATIENCE_SECONDS, auntil

Application = Callable[[Any, Any, Any], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(application: Application, **options: Any) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    options = {"ws": FanoutProtocol, "lifespan": "off", "log_level": "error", **options}
    config = uvicorn.Config(application, **options)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve([listener]))
    try:
        await auntil(lambda: server.started)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        await running
        listener.close()


def client(address: str, **options: Any) -> Any:
    return connect(address, proxy=None, **options)


async def receive(link: ClientConnection) -> Any:
    return await asyncio.wait_for(link.recv(), PATIENCE_SECONDS)


async def closed(link: ClientConnection) -> int:
    """The code the server closes with; what comes before it is read and dropped."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await receive(link)
    return caught.value.rcvd.code if caught.value.rcvd else CloseCode.ABNORMAL_CLOSURE


@contextlib.asynccontextmanager
async def raw(
    address: str, headers: dict[str, str]
) -> AsyncIterator[tuple[bytes, asyncio.StreamReader]]:
    """A client that reads bytes: the head of the server's answer, and what follows it."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(address[:-1].rpartition(":")[2])
    )
    asked = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        **headers,
    }
    lines = [f"{name}: {value}" for name, value in asked.items()]
    writer.write("\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode())
    try:
        yield await reader.readuntil(b"\r\n\r\n"), reader
    finally:
        writer.close()
        await writer.wait_closed()


class Taking:
    """An application that takes a line for its socket, and waits until it is told to end."""

    def __init__(self, bound: int | None = None, code: int = 4000) -> None:
        self._bound = bound
        self._code = code
        self.line: DirectOutbox | None = None
        self.send: Any = None
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        self.received: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.send = send
        opening = scope["extensions"][EXTENSION]["open"]
        self.line = opening(self._bound, lambda failure: self.ended.set())
        self.opened.set()
        reader = asyncio.create_task(self._read(receive))
        await self.ended.wait()
        reader.cancel()
        await send({"type": "websocket.close", "code": self._code})

    async def _read(self, receive: Any) -> None:
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                return self.ended.set()

    async def open(self) -> DirectOutbox:
        await asyncio.wait_for(self.opened.wait(), PATIENCE_SECONDS)
        assert self.line is not None
        return self.line


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "spoken", "headers": [(b"x-a", b"b")]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == "end":
            return await send({"type": "websocket.close", "code": 4321, "reason": "asked to"})
        answer = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **answer})


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_an_ordinary_application_is_served_as_ever(compression: str | None) -> None:
    async with (
        serving(echo) as address,
        client(address, subprotocols=["spoken"], compression=compression) as link,
    ):
        assert link.subprotocol == "spoken"
        assert link.response.headers["x-a"] == "b"
        for message in ("text", b"bytes", "x" * 100_000):
            await link.send(message)
            assert await receive(link) == message
        await (await link.ping())
        await link.send("end")
        assert await closed(link) == 4321
        assert link.close_reason == "asked to"


@pytest.mark.parametrize(
    ("offers", "option", "compressed"),
    [
        ("permessage-deflate; client_max_window_bits", True, True),
        ("permessage-deflate; server_max_window_bits=15", True, True),
        # A window that is smaller than what all others are served with.
        ("permessage-deflate; server_max_window_bits=10", True, False),
        (None, True, False),
        ("permessage-deflate", False, False),
    ],
)
async def test_a_line_is_compressed_for_who_agreed_and_for_nobody_else(
    offers: str | None, option: bool, compressed: bool
) -> None:
    application = Taking()
    message = SharedFrame("a row and another row " * 50)
    async with serving(application, ws_per_message_deflate=option) as address:
        headers = {} if offers is None else {"Sec-WebSocket-Extensions": offers}
        async with raw(address, headers) as (head, reader):
            agreed = b"permessage-deflate; server_no_context_takeover; client_no_context" in head
            assert agreed == (offers is not None and option)
            line = await application.open()
            line.put(message)
            wanted = message.form(compressed)
            assert await reader.readexactly(len(wanted)) == wanted
            assert (len(wanted) < 100) == compressed


@pytest.fixture
def frozen() -> Iterator[None]:
    """The garbage collector looks at nothing that was there before, which would take it long."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
async def test_a_socket_that_has_gone_leaves_nothing_to_the_garbage_collector() -> None:
    """But for what asyncio makes of its own transport."""
    protocols: list[weakref.ref[Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        opening = scope["extensions"][EXTENSION]["open"]
        protocols.append(weakref.ref(opening.__self__))
        await receive()
        await send({"type": "websocket.accept"})
        line = opening(None, lambda failure: None)
        await receive()
        await line.stop()

    async with serving(application) as address:
        for leave in ("close", "abort"):
            gc.collect()
            gc.disable()
            try:
                link = await client(address)
                await (link.close() if leave == "close" else asyncio.sleep(0))
                link.transport.abort()
                await auntil(lambda: protocols[-1]() is None)
            finally:
                gc.enable()
    assert len(protocols) == 2


@pytest.mark.usefixtures("wal", "closing_hub", "frozen")
@pytest.mark.parametrize("ws", [FanoutProtocol, "websockets-sansio"])
async def test_nor_does_a_socket_that_was_served(ws: Any, granted: Any) -> None:
    await db(granted, "view_note", using={"is_public": True})
    binding = {"event": "*", "schema": "public", "table": "zoo_note", "snapshot": True}
    config = {"postgres_changes": [binding], "presence": {"key": "me", "enabled": True}}
    async with serving(realtime_application, ws=ws) as address:
        for leave in ("close", "abort", "after nonsense"):
            gc.collect()
            gc.disable()
            try:
                link = await client(f"{address}realtime/v1/websocket?vsn=2.0.0")
                (disconnect,) = hub().sockets.values()
                consumer = weakref.ref(disconnect.__self__)
                del disconnect
                if leave == "after nonsense":
                    await link.send("no frame at all")
                    await link.send(json.dumps(["1", "1", "phoenix", "access_token", {}]))
                await link.send(
                    json.dumps(["1", "1", "realtime:a", "phx_join", {"config": config}])
                )
                while "presence_state" not in await receive(link):
                    pass
                await (link.close() if leave == "close" else asyncio.sleep(0))
                link.transport.abort()
                await auntil(lambda consumer=consumer: consumer() is None)
            finally:
                gc.enable()


@pytest.mark.parametrize("ws", [FanoutProtocol, "websockets-sansio"])
async def test_clients_behind_a_proxy_do_not_share_what_one_address_may_hold(ws: Any) -> None:
    """Each of them holds a message that is not complete, together more than an address may."""
    holding, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        bound_frames(send, 1_048_576)
        await receive()
        await send({"type": "websocket.accept"})
        size = len((await receive()).get("text") or "")
        await send({"type": "websocket.send", "text": str(size)})
        await receive()

    async def one(address: str, number: int) -> Any:
        headers = {"X-Forwarded-For": f"192.0.2.{number}"}
        async with client(address, additional_headers=headers, compression=None) as link:

            async def parts() -> AsyncIterator[str]:
                yield "x" * 1_000_000
                # The answer to a ping shows that the part has been read.
                await (await link.ping())
                holding.release()
                await go_on.wait()
                yield "x"

            await link.send(parts())
            return await receive(link)

    async with (
        serving(application, ws=ws, forwarded_allow_ips="*") as address,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        clients = [asyncio.create_task(one(address, number)) for number in range(18)]
        for _ in clients:
            held = asyncio.create_task(holding.acquire())
            await asyncio.wait([held, *clients], return_when=asyncio.FIRST_COMPLETED)
            assert held.done()
        go_on.set()
        assert await asyncio.gather(*clients) == ["1000001"] * 18


async def test_an_accepted_socket_keeps_its_scope_and_no_other_copy_of_its_handshake() -> None:
    async with serving(echo) as address, raw(address, {"X-Long": "kept once"}) as (head, _):
        assert head.startswith(b"HTTP/1.1 101 ")
        await auntil(lambda: not any(type(one) is Headers and one for one in gc.get_objects()))


async def test_reading_stops_while_messages_wait_and_not_for_one_that_was_awaited() -> None:
    stops: list[str] = []
    taken: list[str] = []
    go = asyncio.Event()
    transport: Any = None

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal transport
        await receive()
        await send({"type": "websocket.accept"})
        transport = send.__self__.transport
        pause = transport.pause_reading
        transport.pause_reading = lambda: (stops.append("stop"), pause())
        while (message := await receive())["type"] == "websocket.receive":
            taken.append(message["text"])
            await send({"type": "websocket.send", "text": message["text"]})
            if message["text"] == "wait":
                await go.wait()

    async with serving(application) as address, client(address, compression=None) as link:
        for text in ("a", "b", "wait"):
            await link.send(text)
            assert await receive(link) == text
        assert not stops
        more = [f"{number:100}" for number in range(3_000)]
        sending = asyncio.gather(*map(link.send, more))
        await auntil(lambda: not transport.is_reading())
        assert taken == ["a", "b", "wait"]
        go.set()
        assert [await receive(link) for _ in more] == more
        await sending
        assert taken[3:] == more
        await auntil(lambda: transport.is_reading())


async def test_what_an_application_cannot_send_is_its_own_trouble() -> None:
    application = Taking()
    failed: list[Exception] = []

    async def both(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/good":
            return await application(scope, receive, send)
        await receive()
        await send({"type": "websocket.accept"})
        scope["extensions"][EXTENSION]["open"](None, lambda failure: None)
        try:
            await send({"type": "websocket.send", "text": "\ud800"})
        except Exception as error:
            failed.append(error)
        (await application.open()).put(SharedFrame("for the other"))
        await send({"type": "websocket.send", "text": "fine"})
        await receive()

    async with serving(both) as address, client(f"{address}good") as good:
        await application.open()
        async with client(f"{address}bad") as bad:
            assert await receive(good) == "for the other"
            assert await receive(bad) == "fine"
    assert [type(error) for error in failed] == [UnicodeEncodeError]


async def test_a_line_that_is_opened_late_follows_what_the_transport_holds() -> None:
    much = b"x" * 30_000_000

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sending = asyncio.create_task(send({"type": "websocket.send", "bytes": much}))
        line = None
        while line is None or not line.size:
            # Until the client's buffers are full.
            await asyncio.sleep(0)
            line = scope["extensions"][EXTENSION]["open"](None, lambda failure: None)
        line.put(SharedFrame("after"))
        await sending
        await receive()

    async with (
        serving(application, ws_per_message_deflate=False) as address,
        client(address, max_size=None, max_queue=1, compression=None) as link,
    ):
        assert await receive(link) == much
        assert await receive(link) == "after"


async def test_a_client_that_compresses_reads_and_is_read() -> None:
    application = Taking()
    texts = [f"{number} " + "soup, " * number * 50 for number in range(5)]
    async with serving(application) as address, client(address, compression="deflate") as link:
        line = await application.open()
        for text in texts:
            line.put(SharedFrame(text))
            await link.send(text)
            assert await receive(link) == text
        await auntil(lambda: len(application.received) == len(texts))
        assert [message["text"] for message in application.received] == texts


async def test_an_application_may_refuse_with_a_response_of_its_own() -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        start = "websocket.http.response.start"
        await send({"type": start, "status": 418, "headers": [(b"x-why", b"tea")]})
        await send({"type": "websocket.http.response.body", "body": b"no coffee"})

    async with serving(refuse) as address:
        with pytest.raises(InvalidStatus) as caught:
            await client(address)
        assert caught.value.response.status_code == 418
        assert caught.value.response.body == b"no coffee"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """uvicorn's options for TLS under a certificate that nobody vouches for."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, plain))
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    return {"ssl_keyfile": f"{folder}/key.pem", "ssl_certfile": f"{folder}/cert.pem"}


async def test_with_tls_the_line_goes_through_the_transport(certificate: dict[str, str]) -> None:
    application = Taking(bound=10_000_000)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with (
        serving(application, **certificate) as address,
        client(address.replace("ws:", "wss:"), ssl=trusting, max_queue=None) as link,
    ):
        line = await application.open()
        assert line.fd < 0
        link.transport.pause_reading()
        for number in range(100):
            line.put(SharedFrame(f"{number} {'x' * 50_000}"))
            await asyncio.sleep(0)
        link.transport.resume_reading()
        line.put("last")
        for number in range(100):
            assert (await receive(link)).split()[0] == str(number)
        assert await receive(link) == "last"
        line.close()
        assert await closed(link) == 4000


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_frames_of_the_line_and_ordinary_ones_come_in_the_order_of_sending(
    compression: str | None,
) -> None:
    application = Taking()
    async with serving(application) as address, client(address, compression=compression) as link:
        line = await application.open()
        line.put(SharedFrame("1"))
        line.put("2")
        await application.send({"type": "websocket.send", "text": "3"})
        line.put(SharedFrame(b"4"))
        await application.send({"type": "websocket.send", "bytes": b"5"})
        line.put(SharedFrame("x" * 70_000))
        line.close()
        got = [await receive(link) for _ in range(6)]
        assert got == ["1", "2", "3", b"4", b"5", "x" * 70_000]
        assert await closed(link) == 4000


async def test_the_order_holds_while_the_client_reads_nothing_too() -> None:
    application = Taking()
    async with (
        serving(application, ws_ping_interval=None) as address,
        client(address, compression=None, max_queue=None) as link,
    ):
        line = await application.open()
        link.transport.pause_reading()
        ordinary = []
        for number in range(200):
            line.put(SharedFrame(f"{number} {'x' * 50_000}"))
            text = {"type": "websocket.send", "text": f"{number} too"}
            ordinary.append(asyncio.create_task(application.send(text)))
            await asyncio.sleep(0)
        # A server that pushes back makes an ordinary sender wait.
        assert not ordinary[-1].done()
        link.transport.resume_reading()
        for number in range(200):
            assert (await receive(link)).split()[0] == str(number)
            assert await receive(link) == f"{number} too"
        await asyncio.gather(*ordinary)


async def test_a_slow_reader_is_given_up_and_finds_the_code_when_it_reads() -> None:
    application = Taking(bound=1_000_000, code=4430)
    async with (
        serving(application, ws_ping_interval=None) as address,
        client(address, compression=None, max_queue=None, max_size=None) as link,
    ):
        line = await application.open()
        link.transport.pause_reading()
        for _ in range(1_000):
            line.put(SharedFrame("x" * 50_000))
            await asyncio.sleep(0)
            if line.overflowed:
                break
        assert line.overflowed
        await auntil(lambda: application.ended.is_set())
        await asyncio.sleep(0)
        link.transport.resume_reading()
        assert await closed(link) == 4430


async def test_pings_are_answered_and_closes_echoed_beside_the_line() -> None:
    application = Taking()
    async with serving(application) as address:
        link = await client(address)
        line = await application.open()
        for number in range(3):
            line.put(SharedFrame(str(number)))
            await (await link.ping())
            assert await receive(link) == str(number)
        await link.close(4999)
        assert link.close_code == 4999
        await asyncio.wait_for(application.ended.wait(), PATIENCE_SECONDS)
        assert application.received[-1]["code"] == 4999
        # Too late for anybody, and no harm.
        line.put(SharedFrame("nobody hears"))
        await asyncio.sleep(0)


async def test_a_client_that_is_gone_without_a_word_ends_its_own_line_only() -> None:
    lines: list[DirectOutbox] = []
    over: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        lines.append(scope["extensions"][EXTENSION]["open"](None, lambda failure: None))
        while (await receive())["type"] != "websocket.disconnect":
            continue
        over.append(len(lines))

    async with serving(application) as address:
        gone, stays = await client(address), await client(address)
        await auntil(lambda: len(lines) == 2)
        gone.transport.abort()
        for number in range(20):
            shared = SharedFrame(str(number))
            for line in lines:
                line.put(shared)
            assert await receive(stays) == str(number)
        await auntil(lambda: over)
        await stays.close()


async def test_a_stopping_server_sends_what_waits_and_closes_with_1012() -> None:
    application = Taking()
    async with serving(application) as address:
        link = await client(address)
        line = await application.open()
        line.put(SharedFrame("last words"))
    assert await receive(link) == "last words"
    assert await closed(link) == CloseCode.SERVICE_RESTART
