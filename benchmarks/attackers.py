"""Clients that mean harm, all at once: `python -m benchmarks.attackers PORT SECONDS [ATTACK...]`.

Each attack is one coroutine with an address of its own (127.0.0.2 and up), which goes on until the
time is over, and comes back whenever it is thrown out. What it costs others is measured elsewhere
(`hostile.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

TABLE = "zoo_note"
KEY = "sb_publishable_test"
TEXT, BINARY, CONTINUATION, PING = 1, 2, 0, 9


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65_536:
        head += bytes([0x80 | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", len(payload))
    return head + b"\0\0\0\0" + payload


def message(*parts: Any) -> bytes:
    return frame(TEXT, json.dumps(parts).encode())


def joining(topic: str, *bindings: dict[str, Any], ref: str = "1", **config: Any) -> bytes:
    payload = {"config": {"postgres_changes": list(bindings), **config}}
    return message(ref, ref, f"realtime:{topic}", "phx_join", payload)


def changes(**more: Any) -> dict[str, Any]:
    return {"event": "*", "schema": "public", "table": TABLE, **more}


class Attacker:
    """Where an attack goes to, where it comes from, and when it ends."""

    def __init__(self, port: int, address: str, until: float) -> None:
        self.port, self.address, self.until = port, address, until

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    async def tcp(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(self.address, 0), limit=2**16
        )

    def handshake(self, key: str = KEY) -> bytes:
        return (
            f"GET /realtime/v1/websocket?vsn=2.0.0&apikey={key} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()

    @contextlib.asynccontextmanager
    async def socket(self, *said: bytes) -> AsyncIterator[asyncio.StreamWriter]:
        """An open WebSocket, whose frames are read and dropped while the block runs."""
        reader, writer = await self.tcp()
        writer.write(self.handshake())
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        reading = asyncio.create_task(_drop(reader))
        try:
            for each in said:
                writer.write(each)
            yield writer
        finally:
            reading.cancel()
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def deaf(self, *said: bytes) -> AsyncIterator[asyncio.StreamWriter]:
        """An open WebSocket that reads nothing after its handshake."""
        reader, writer = await self.tcp()
        writer.write(self.handshake())
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        transport: Any = writer.transport
        transport.pause_reading()
        try:
            for each in said:
                writer.write(each)
            yield writer
        finally:
            transport.abort()

    async def post(self, path: str, body: bytes) -> None:
        reader, writer = await self.tcp()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\napikey: {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await asyncio.wait_for(_drop(reader), 20)
        writer.transport.abort()


async def _drop(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


# --- below the protocol ---------------------------------------------------------------------------


async def pings(one: Attacker) -> None:
    async with one.deaf() as writer:
        await _pour(writer, frame(PING, b"p" * 125) * 2_000)


async def fragments(one: Attacker) -> None:
    async with one.socket(frame(TEXT, b"x", final=False)) as writer:
        await _pour(writer, frame(CONTINUATION, b"", final=False) * 2_000)


async def endless_message(one: Attacker) -> None:
    async with one.socket(frame(BINARY, b"x", final=False)) as writer:
        await _pour(writer, frame(CONTINUATION, b"x" * 100_000, final=False))


async def large_frames(one: Attacker) -> None:
    async with one.socket() as writer:
        writer.write(frame(TEXT, b"x" * 3_000_000))
        await writer.drain()
        await asyncio.sleep(0.2)


async def garbage(one: Attacker) -> None:
    for wrong in (frame(3, b"x"), frame(TEXT, b"\xff"), frame(CONTINUATION, b"x"), os.urandom(999)):
        async with one.socket(joining("noise"), wrong):
            await asyncio.sleep(0.05)


async def tiny_frames(one: Attacker) -> None:
    """As many messages in a packet as it takes, on several sockets."""
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(one.socket()) for _ in range(10)]
        packet = frame(TEXT, b"x") * 9_000
        for _ in range(5):
            for writer in sockets:
                writer.write(packet)
            await asyncio.sleep(0.1)


async def large_payloads(one: Attacker) -> None:
    """Messages that take long to read, on several sockets."""
    body = {"type": "broadcast", "event": "e", "payload": {f"k{n}": [n] for n in range(50_000)}}
    said = message("1", "1", "realtime:noise", "broadcast", body)
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(one.socket()) for _ in range(10)]
        for _ in range(5):
            for writer in sockets:
                writer.write(said)
            await asyncio.gather(*(writer.drain() for writer in sockets))


async def many_small(one: Attacker) -> None:
    """Heartbeats without end, on many sockets."""
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(one.socket()) for _ in range(40)]
        packet = message(None, "1", "phoenix", "heartbeat", {}) * 500
        for _ in range(20):
            for writer in sockets:
                writer.write(packet)
            await asyncio.sleep(0.1)


async def slow_heads(one: Attacker) -> None:
    """Connections that say nothing, or their handshake a byte at a time."""
    opened = [await one.tcp() for _ in range(60)]
    said = one.handshake()
    for place in range(40):
        if not one.goes_on:
            break
        for _, writer in opened[30:]:
            writer.write(said[place : place + 1])
        await asyncio.sleep(0.5)
    for _, writer in opened:
        writer.transport.abort()


async def _pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await asyncio.wait_for(writer.drain(), 3)


# --- handshakes and joins -------------------------------------------------------------------------


async def bad_tokens(one: Attacker) -> None:
    for number in range(50):
        reader, writer = await one.tcp()
        writer.write(one.handshake(f"a.b{number}.c"))
        await asyncio.wait_for(reader.read(1_000), 10)
        writer.transport.abort()


async def joins(one: Attacker) -> None:
    """Joins and leaves without end, of public topics and of private ones that are refused."""
    async with one.socket() as writer:
        for number in range(2_000):
            topic = f"t{number % 50}"
            writer.write(joining(topic, changes(), ref=str(number), private=number % 2 == 1))
            writer.write(message(str(number), "l", f"realtime:{topic}", "phx_leave", {}))
            await writer.drain()
            await asyncio.sleep(0.001)


async def large_joins(one: Attacker) -> None:
    bindings = [changes(filter=f"title=eq.{n}{'x' * 8_000}") for n in range(100)]
    async with one.socket() as writer:
        for number in range(20):
            writer.write(joining(f"large{number}", *bindings, ref=str(number)))
            await writer.drain()
        await asyncio.sleep(1)


async def wide_filters(one: Attacker) -> None:
    """Joins of filters with as many conditions as they take, and of such as take long to read."""
    many = [
        changes(filter=",".join(f"id=neq.{n * 100 + k}" for k in range(100))) for n in range(100)
    ]
    soup = [changes(filter=f"title=in.({'()' * 8_000}{n}") for n in range(60)]
    listed = [changes(filter=f"title=in.({',' * 16_000})") for n in range(60)]
    async with one.socket() as writer:
        for number in range(30):
            bindings = (many, soup, listed)[number % 3]
            writer.write(joining(f"wide{number % 9}", *bindings, ref=str(number)))
            await writer.drain()
        await asyncio.sleep(1)


async def patterns(one: Attacker) -> None:
    """Filters that are costly to judge, for each row that is written."""
    costly = ",".join(["title=not.match.[ab].{900}"] * 60)
    wide = ",".join([f"title=not.like.{'_' * 900}"] * 16)
    async with one.socket(
        joining("costly", changes(filter=costly), ref="1"),
        joining("wide", *[changes(filter=wide)] * 50, ref="2"),
    ):
        await asyncio.sleep(3)


async def replays(one: Attacker) -> None:
    wanted = [changes(since=0, filter="title=eq.nothing"), changes(snapshot=True)]
    async with one.socket() as writer:
        for number in range(100):
            writer.write(joining(f"r{number}", wanted[number % 2], ref=str(number)))
        await writer.drain()
        await asyncio.sleep(2)


async def deaf_listeners(one: Attacker) -> None:
    """Sockets that ask for everything and read nothing."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(
                one.deaf(joining("all", changes(since=0)), joining("noise", ref="2"))
            )
        await asyncio.sleep(5)


# --- topics ---------------------------------------------------------------------------------------


async def broadcasts(one: Attacker) -> None:
    body = {"type": "broadcast", "event": "e", "payload": {"text": "x" * 30_000}}
    async with one.socket(joining("noise", broadcast={"self": True})) as writer:
        for number in range(3_000):
            writer.write(message("1", str(number), "realtime:noise", "broadcast", body))
            await writer.drain()
            await asyncio.sleep(0.002)


async def presence(one: Attacker) -> None:
    async with one.socket(joining("crowd", presence={"key": "k", "enabled": True})) as writer:
        for number in range(1_000):
            meta = {"n": number, "text": "x" * 4_000}
            body = {"type": "presence", "event": "track", "payload": meta}
            writer.write(message("1", str(number), "realtime:crowd", "presence", body))
            await writer.drain()
            await asyncio.sleep(0.005)


async def malformed_posts(one: Attacker) -> None:
    await one.post("/realtime/api/broadcast", b'{"messages":[' + b"0," * 450_000 + b"0]}")


async def private_posts(one: Attacker) -> None:
    wanted = [
        {"topic": f"p{n}", "event": "e", "payload": {}, "private": True} for n in range(1_000)
    ]
    await one.post("/realtime/api/broadcast", json.dumps({"messages": wanted}).encode())


ATTACKS: tuple[Callable[[Attacker], Awaitable[None]], ...] = (
    pings,
    fragments,
    endless_message,
    large_frames,
    garbage,
    tiny_frames,
    large_payloads,
    many_small,
    slow_heads,
    bad_tokens,
    joins,
    large_joins,
    wide_filters,
    patterns,
    replays,
    deaf_listeners,
    broadcasts,
    presence,
    malformed_posts,
    private_posts,
)


async def repeat(attack: Callable[[Attacker], Awaitable[None]], one: Attacker) -> int:
    """Attack until the time is over; how often."""
    times = 0
    while one.goes_on:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout_at(
                asyncio.get_running_loop().time() + one.until - time.monotonic()
            ):
                await attack(one)
        times += 1
        await asyncio.sleep(0.1)
    return times


async def attack_all(port: int, seconds: float, names: Collection[str] = ()) -> dict[str, int]:
    """All attacks at once, or those of these names; how often each was made."""
    until = time.monotonic() + seconds
    chosen = [attack for attack in ATTACKS if not names or attack.__name__ in names]
    running = [
        repeat(attack, Attacker(port, f"127.0.0.{number}", until))
        for number, attack in enumerate(chosen, 2)
    ]
    times = await asyncio.gather(*running)
    return {attack.__name__: count for attack, count in zip(chosen, times, strict=True)}


if __name__ == "__main__":
    # Where cores are few, the server and the good client must not wait for the attackers' own work.
    os.nice(5)
    # A connection that a server has ended is no news here.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    print(json.dumps(asyncio.run(attack_all(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))))
