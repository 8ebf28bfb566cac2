"""What a client sends below the protocol costs others nothing, and is bounded on every server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import zlib
from typing import Any

import pytest

from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.raw_frames import frame, request
from tests.acceptance.support.server import ANON_KEY, PATIENCE, Server

SERVERS = pytest.mark.parametrize("kind", ["daphne", "uvicorn", "fanout"])
FRAME_BYTES = 100_000
PING, PONG, TEXT, CONTINUATION = 9, 10, 1, 0

#: What is sent, how often, and the codes that it may be closed with.
ABUSE: dict[str, tuple[bytes, int, set[int]]] = {
    "pings": (frame(PING, b"p" * 125) * 1_000, 20, {4429}),
    "empty pings": (frame(PING, b"") * 1_000, 20, {4429}),
    "pongs": (frame(PONG, b"p") * 1_000, 20, {4429}),
    "empty fragments": (frame(CONTINUATION, b"", final=False) * 1_000, 20, {4429}),
    "fragments of a byte": (frame(CONTINUATION, b"x", final=False) * 1_000, 20, {4429}),
    "a message without end": (frame(CONTINUATION, b"x" * 40_000, final=False), 20, {4413, 1009}),
    "a frame that is too large": (frame(TEXT, b"x" * (FRAME_BYTES + 1)), 1, {4413, 1009}),
    "a frame far too large": (frame(TEXT, b"x" * 3_000_000), 1, {4413, 1009}),
    "the head of a large frame": (frame(TEXT, b"x" * 3_000_000)[:1_000], 1, {4413, 1009}),
}


async def opened(server: Server, extensions: str = "") -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    asked = request(server, f"apikey={ANON_KEY}&vsn=2.0.0")
    if extensions:
        asked = asked[:-2] + f"Sec-WebSocket-Extensions: {extensions}\r\n\r\n".encode()
    writer.write(asked)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    return reader, writer, head.decode()


async def close_code(reader: asyncio.StreamReader) -> int:
    """The code that a socket is closed with; 1006 when the connection ends without one."""
    try:
        while True:
            opcode, size = await asyncio.wait_for(reader.readexactly(2), PATIENCE)
            if size == 126:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
            payload = await reader.readexactly(size)
            if opcode & 15 == 8:
                return int.from_bytes(payload[:2])
    except (asyncio.IncompleteReadError, ConnectionError):
        return 1006


@SERVERS
async def test_abuse_below_the_protocol_ends_its_own_socket_with_a_code(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind, realtime={"LIMITS": {"frame_bytes": FRAME_BYTES}})
    async with await RawClient.open(world.server) as other:
        for name, (data, times, codes) in ABUSE.items():
            reader, writer, _ = await opened(world.server)
            if "fragment" in name or "without end" in name:
                writer.write(frame(TEXT, b"x", final=False))
            with contextlib.suppress(ConnectionError):
                for _ in range(times):
                    writer.write(data)
                    await writer.drain()
            assert await close_code(reader) in codes, name
            writer.close()
            assert (await other.push("phoenix", "heartbeat", {}))["status"] == "ok"
    assert "Traceback" not in world.server.log


async def test_a_message_that_grows_when_it_is_inflated_is_bounded(fresh: Any) -> None:
    world = fresh("fanout", realtime={"LIMITS": {"frame_bytes": FRAME_BYTES}})
    reader, writer, head = await opened(world.server, "permessage-deflate; client_max_window_bits")
    assert "permessage-deflate" in head
    compressor = zlib.compressobj(wbits=-12)
    data = compressor.compress(b"x" * 5_000_000) + compressor.flush(zlib.Z_SYNC_FLUSH)
    whole = frame(TEXT, data[:-4])
    writer.write(bytes([whole[0] | 0x40]) + whole[1:])
    assert await close_code(reader) in {4413, 1009}
    writer.close()


@SERVERS
async def test_a_client_that_pings_now_and_then_is_answered(fresh: Any, kind: str) -> None:
    world = fresh(kind)
    reader, writer, _ = await opened(world.server)
    for number in range(30):
        payload = f"{number}".encode()
        writer.write(frame(PING, payload))
        answer = await asyncio.wait_for(reader.readexactly(2 + len(payload)), PATIENCE)
        assert answer == bytes([0x80 | PONG, len(payload)]) + payload
    writer.close()


@SERVERS
async def test_a_message_in_several_fragments_is_one_message(fresh: Any, kind: str) -> None:
    world = fresh(kind)
    reader, writer, _ = await opened(world.server)
    text = b'[null,"7","phoenix","heartbeat",{}]'
    writer.write(frame(TEXT, text[:9], final=False))
    writer.write(frame(PING, b"between"))
    writer.write(frame(CONTINUATION, text[9:20], final=False))
    writer.write(frame(CONTINUATION, text[20:]))
    found = b""
    while b'"7"' not in found:
        found += await asyncio.wait_for(reader.read(65_536), PATIENCE)
    assert b"phx_reply" in found
    writer.close()


@SERVERS
async def test_thousands_of_messages_in_one_packet_are_answered_in_order(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind)
    reader, writer, _ = await opened(world.server)
    count = 5_000
    said = [f'[null,"{n}","phoenix","heartbeat",{{}}]'.encode() for n in range(count)]
    large = json.dumps([None, "large", "phoenix", "heartbeat", {"a": "x" * 60_000}]).encode()
    writer.write(b"".join(frame(TEXT, text) for text in [*said, large, said[0]]))
    found = []
    while len(found) < count + 2:
        opcode, size = await asyncio.wait_for(reader.readexactly(2), PATIENCE)
        if size == 126:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
        payload = await reader.readexactly(size)
        if opcode & 15 == TEXT:
            found.append(json.loads(payload)[1])
    assert found == [*map(str, range(count)), "large", "0"]
    writer.close()
    assert "Traceback" not in world.server.log


@SERVERS
async def test_unfinished_messages_of_one_address_are_bounded_together(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind)
    sockets = [await opened(world.server) for _ in range(24)]
    for _, writer, _ in sockets:
        writer.write(frame(TEXT, b"x" * 1_000_000)[:900_000])
    ends = [asyncio.create_task(close_code(reader)) for reader, _, _ in sockets]
    done, open_still = await asyncio.wait(
        ends, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
    )
    assert {each.result() for each in done} == {4429}
    # Those that were there before stay.
    assert len(open_still) >= 12
    for each in open_still:
        each.cancel()
    for _, writer, _ in sockets:
        writer.close()


GARBAGE = (
    frame(3, b"x"),
    frame(TEXT, b"\xff\xff"),
    frame(CONTINUATION, b"x"),
    frame(8, b"\x03"),
    frame(TEXT, b"hello", masked=False),
)


@SERVERS
async def test_a_malformed_frame_among_broadcasts_leaves_no_traceback(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind)

    async def talk(number: int) -> None:
        reader, writer, _ = await opened(world.server)
        config = {"config": {"broadcast": {"self": True}}}
        said = [["1", "1", "realtime:t", "phx_join", config]]
        body = {"event": "e", "payload": {"text": "x" * 2_000}}
        said += [["1", str(n), "realtime:t", "broadcast", body] for n in range(2, 22)]
        with contextlib.suppress(ConnectionError):
            for message in said:
                writer.write(frame(TEXT, json.dumps(message).encode()))
            writer.write(GARBAGE[number % len(GARBAGE)])
            await writer.drain()
            await close_code(reader)
        writer.close()

    async def ask_with_a_bad_token(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.server.port)
        writer.write(request(world.server, "apikey=x.y.z&vsn=2.0.0"))
        if number % 2:
            await reader.read()
        writer.close()

    async with await RawClient.open(world.server) as other:
        await asyncio.gather(*map(talk, range(40)), *map(ask_with_a_bad_token, range(40)))
        assert (await other.push("phoenix", "heartbeat", {}))["status"] == "ok"
    assert "Traceback" not in world.server.log
    assert "Unexpected ASGI message" not in world.server.log
