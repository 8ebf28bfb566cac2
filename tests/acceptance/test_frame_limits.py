"""What a client sends below the protocol costs others nothing, and is bounded on every server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from typing import Any

import pytest

from tests.acceptance.support.frame_socket import TEXT, FrameSocket
from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.raw_frames import frame, request
from tests.acceptance.support.server import PATIENCE

SERVERS = pytest.mark.parametrize("kind", ["daphne", "uvicorn", "fanout"])
FRAME_BYTES = 100_000
PING, PONG, CONTINUATION = 9, 10, 0

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


@SERVERS
async def test_abuse_below_the_protocol_ends_its_own_socket_with_a_code(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind, realtime={"LIMITS": {"frame_bytes": FRAME_BYTES}})
    async with await RawClient.open(world.server) as other:
        for name, (data, times, codes) in ABUSE.items():
            async with await FrameSocket.open(world.server) as one:
                if "fragment" in name or "without end" in name:
                    one.send(frame(TEXT, b"x", final=False))
                for _ in range(times):
                    one.send(data)
                assert await one.close_code() in codes, name
            assert (await other.push("phoenix", "heartbeat", {}))["status"] == "ok"
    assert "Traceback" not in world.server.log


async def test_a_message_that_grows_when_it_is_inflated_is_bounded(fresh: Any) -> None:
    world = fresh("fanout", realtime={"LIMITS": {"frame_bytes": FRAME_BYTES}})
    offer = "permessage-deflate; client_max_window_bits"
    async with await FrameSocket.open(world.server, offer) as one:
        assert "permessage-deflate" in one.head
        compressor = zlib.compressobj(wbits=-12)
        data = compressor.compress(b"x" * 5_000_000) + compressor.flush(zlib.Z_SYNC_FLUSH)
        whole = frame(TEXT, data[:-4])
        one.send(bytes([whole[0] | 0x40]) + whole[1:])
        assert await one.close_code() in {4413, 1009}


@SERVERS
async def test_a_client_that_pings_now_and_then_is_answered(fresh: Any, kind: str) -> None:
    world = fresh(kind)
    async with await FrameSocket.open(world.server) as one:
        for number in range(30):
            payload = f"{number}".encode()
            one.send(frame(PING, payload))
            assert await one.next_frame() == (PONG, payload)


@SERVERS
async def test_a_message_in_several_fragments_is_one_message(fresh: Any, kind: str) -> None:
    world = fresh(kind)
    text = b'[null,"7","phoenix","heartbeat",{}]'
    async with await FrameSocket.open(world.server) as one:
        one.send(frame(TEXT, text[:9], final=False))
        one.send(frame(PING, b"between"))
        one.send(frame(CONTINUATION, text[9:20], final=False))
        one.send(frame(CONTINUATION, text[20:]))
        answers = [await one.next_frame() for _ in range(2)]
    assert (PONG, b"between") in answers
    assert any(b'"7"' in payload and b"phx_reply" in payload for _, payload in answers)


@SERVERS
async def test_thousands_of_messages_in_one_packet_are_answered_in_order(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind)
    count = 5_000
    said = [f'[null,"{n}","phoenix","heartbeat",{{}}]'.encode() for n in range(count)]
    large = json.dumps([None, "large", "phoenix", "heartbeat", {"a": "x" * 60_000}]).encode()
    found = []
    async with await FrameSocket.open(world.server) as one:
        one.send(b"".join(frame(TEXT, text) for text in [*said, large, said[0]]))
        while len(found) < count + 2:
            opcode, payload = await one.next_frame()
            if opcode == TEXT:
                found.append(json.loads(payload)[1])
    assert found == [*map(str, range(count)), "large", "0"]
    assert "Traceback" not in world.server.log


@SERVERS
async def test_unfinished_messages_of_one_address_are_bounded_together(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind)
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(await FrameSocket.open(world.server)) for _ in range(24)
        ]
        for one in sockets:
            one.send(frame(TEXT, b"x" * 1_000_000)[:900_000])
        ends = [asyncio.create_task(one.close_code()) for one in sockets]
        try:
            done, open_still = await asyncio.wait(
                ends, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            assert {each.result() for each in done} == {4429}
            # Those that were there before stay.
            assert len(open_still) >= 12
        finally:
            for each in ends:
                each.cancel()
            await asyncio.wait(ends)


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
        config = {"config": {"broadcast": {"self": True}}}
        said = [["1", "1", "realtime:t", "phx_join", config]]
        body = {"event": "e", "payload": {"text": "x" * 2_000}}
        said += [["1", str(n), "realtime:t", "broadcast", body] for n in range(2, 22)]
        async with await FrameSocket.open(world.server) as one:
            for message in said:
                one.send(frame(TEXT, json.dumps(message).encode()))
            one.send(GARBAGE[number % len(GARBAGE)])
            await one.close_code()

    async def ask_with_a_bad_token(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.server.port)
        try:
            writer.write(request(world.server, "apikey=x.y.z&vsn=2.0.0"))
            if number % 2:
                await reader.read()
        finally:
            writer.close()

    async with await RawClient.open(world.server) as other:
        await asyncio.gather(*map(talk, range(40)), *map(ask_with_a_bad_token, range(40)))
        assert (await other.push("phoenix", "heartbeat", {}))["status"] == "ok"
    assert "Traceback" not in world.server.log
    assert "Unexpected ASGI message" not in world.server.log
