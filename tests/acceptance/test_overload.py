"""Who sends garbage, floods, or does not read costs the others nothing, on both servers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
from pathlib import Path
from random import Random
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.raw_frames import frame, request
from tests.acceptance.support.server import ANON_KEY, PATIENCE, Server
from tests.fuzz.feed import entries, scrambled
from tests.support.tokens import token

ALL = {"event": "*", "schema": "public", "table": "zoo_note"}
MINE = {**ALL, "filter": "title=like.mine%"}
PUBLIC = {**ALL, "filter": "title=like.public%"}
SERVERS = pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
MEGABYTE = 1024 * 1024


# --- garbage --------------------------------------------------------------------------------------


async def raw(server: Server, *parts: bytes, upgraded: bool = True, abort: bool = False) -> None:
    """A TCP connection that says this and waits a moment for what comes."""
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            if upgraded:
                writer.write(request(server, f"apikey={ANON_KEY}&vsn=2.0.0"))
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            for part in parts:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(0.2):
                while await reader.read(65_536):
                    pass
        finally:
            if abort:
                linger = struct.pack("ii", 1, 0)
                raw_socket = writer.get_extra_info("socket")
                raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()


async def messages(server: Server, seed: int, vsn: str) -> None:
    """Frames that are almost right, by a client that comes back whenever it is thrown out."""
    random = Random(seed)
    known = entries("frames_v2" if vsn == "2.0.0" else "frames_v1")
    for _ in range(6):
        with contextlib.suppress(WebSocketException, OSError):
            address = server.address(query=f"apikey={ANON_KEY}&vsn={vsn}")
            async with connect(address, compression=None, proxy=None, max_queue=None) as client:
                for _ in range(60):
                    await client.send(scrambled(random, known))


async def handshakes(server: Server, seed: int) -> None:
    """Requests that are almost right."""
    random = Random(seed)
    for _ in range(40):
        name = random.choice(("Origin", "Authorization", "Cookie", "X-Api-Key"))
        line = f"{name}: {scrambled(random, entries('headers'))}"
        query = f"{scrambled(random, entries('queries'))}&token="
        query += str(random.choice(entries("tokens")))[:2_000]
        for white in "\r\n":
            line, query = line.replace(white, ""), query.replace(white, "")
        whole = request(server, query.replace(" ", ""))
        await raw(server, whole[:-2] + line.encode() + b"\r\n\r\n", upgraded=False)


async def bodies(server: Server, seed: int) -> None:
    """Broadcasts over HTTP that are almost right, and lie about their length."""
    random = Random(seed)
    for _ in range(40):
        body = scrambled(random, entries("bodies"))
        data = body.encode() if isinstance(body, str) else body
        length = random.choice((len(data), len(data) + 100, max(0, len(data) - 5)))
        head = (
            "POST /realtime/api/broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        await raw(server, head.encode() + data, upgraded=False)


async def broken_frames(server: Server, seed: int) -> None:
    random = Random(seed)
    cases = [
        [frame(1, b"\xff\xfe\xc3")],
        [frame(1, b"unmasked", masked=False)],
        [frame(7, b"an opcode that there is not")],
        [b"\xf1\x80\0\0\0\0"],
        [frame(1, b"[", final=False), frame(1, b"another before the first ended")],
        [frame(0, b"a continuation of nothing")],
        [frame(9, b"x" * 126)],
        [frame(9, b"ping")] * 500,
        [frame(10, b"pong")] * 500,
        [frame(8, b"\x03")],
        [frame(8, struct.pack(">H", 65_535) + b"bye")],
        [b"\x81\xff" + struct.pack(">Q", 2**63 - 1) + b"\0\0\0\0" + b"x" * 1_000],
        [b"\x81\xff" + struct.pack(">Q", 2**64 - 1) + b"\0\0\0\0"],
        [frame(1, b"x" * (MEGABYTE + 10))],
        [frame(1, b"x" * 60_000, final=False)] * 40,
        [frame(1, b"", final=False)] * 3_000,
        [random.randbytes(5_000)],
        [],
    ]
    for parts in cases:
        await raw(server, *parts, abort=random.random() < 0.5)


async def half_open(server: Server) -> None:
    """Connections that begin and never end, a byte now and then."""
    whole = request(server, f"apikey={ANON_KEY}&vsn=2.0.0")
    streams = []
    try:
        for number in range(60):
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                streams.append((reader, writer))
                writer.write(whole[: number * len(whole) // 61])
        for place in range(20):
            for number, (_, writer) in enumerate(streams):
                at = number * len(whole) // 61 + place
                with contextlib.suppress(OSError):
                    writer.write(whole[at : at + 1])
            await asyncio.sleep(0.02)
    finally:
        for _, writer in streams:
            writer.transport.abort()


async def no_http(server: Server, seed: int) -> None:
    random = Random(seed)
    for said in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /realtime/health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /realtime/health HTTP/1.1\r\n" + b"a: b\r\n" * 5_000,
        base64.b64encode(random.randbytes(9_000)),
        random.randbytes(9_000),
    ):
        await raw(server, said, upgraded=False)


@SERVERS
async def test_garbage_of_every_kind_costs_a_good_client_nothing(fresh: Any, kind: str) -> None:
    world = fresh(kind)
    me = world.orm.user("somebody")
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    async with await RawClient.open(world.server) as good:
        await good.join("mine", MINE, token=token(me))
        bad = asyncio.gather(
            messages(world.server, seed, "2.0.0"),
            messages(world.server, seed + 1, "1.0.0"),
            handshakes(world.server, seed),
            bodies(world.server, seed),
            broken_frames(world.server, seed),
            half_open(world.server),
            no_http(world.server, seed),
        )
        written = 0
        while not bad.done() or written < 50:
            await asyncio.to_thread(world.orm.note, owner=me, title=f"mine {written}")
            written += 1
            if written % 100 == 0:
                # Who is silent for a minute is taken for gone, and all this may take as long.
                assert (await good.push("phoenix", "heartbeat", {}))["status"] == "ok"
            await asyncio.sleep(0.02)
        await bad
        await good.until_row(title=f"mine {written - 1}")
        titles = [change.data["record"]["title"] for change in good.changes()]
        assert titles == [f"mine {number}" for number in range(written)]
        assert (await good.push("phoenix", "heartbeat", {}))["status"] == "ok"
        assert good.close_code is None
    assert faults(world.server) == []


def faults(server: Server) -> list[str]:
    """What the server's log says went wrong, but for uvicorn's own words on a text that is none."""
    lines = [line for line in server.log.splitlines() if "Invalid UTF-8 sequence" not in line]
    log = "\n".join(lines)
    blocks = log.split("Traceback (most recent call last):")[1:]
    found = [block[:2_000] for block in blocks if "send_receive_event_to_app" not in block]
    return found + [line for line in lines if "ERROR" in line]


# --- slow -----------------------------------------------------------------------------------------


@SERVERS
@pytest.mark.timeout(400)
async def test_a_slow_reader_is_closed_and_a_thousand_others_notice_nothing(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind, realtime={"LIMITS": {"outbox_bytes": 2_000_000}})
    async with contextlib.AsyncExitStack() as stack:
        slow = await stack.enter_async_context(await RawClient.open(world.server))
        others: list[RawClient] = []
        for _ in range(50):
            opened = await asyncio.gather(*[RawClient.open(world.server) for _ in range(20)])
            for peer in opened:
                others.append(await stack.enter_async_context(peer))
            await asyncio.gather(*[peer.join("small", PUBLIC) for peer in opened])
        assert len(others) == 1_000
        await slow.join("bulk", ALL)
        slow.pause()
        body = "x" * 50_000
        for number in range(20):
            large = {"body": body, "is_public": True, "title": "large"}
            small = {"title": f"public {number}", "is_public": True}
            await asyncio.to_thread(world.orm.many, "note", [large] * 10 + [small])
            await others[number].until_row(title=f"public {number}")
            await others[number].push("phoenix", "heartbeat", {})
        await asyncio.gather(*[peer.until_row(title="public 19") for peer in others])
        slow.resume()
        # Who reads nothing for long may find the connection gone before the frame that says why.
        assert await slow.until_closed() in (4430, 1006)
        assert "slow_consumer" in world.server.log
        wanted = [f"public {number}" for number in range(20)]
        for peer in others:
            assert [change.data["record"]["title"] for change in peer.changes()] == wanted
            assert peer.close_code is None


# --- a large transaction --------------------------------------------------------------------------

BURST = 100_000
BURST_SQL = """
INSERT INTO zoo_note (title, body, is_public)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s)
SELECT 'bulk ' || i, 'some text that a row may well hold', 0 FROM n
"""


def memory(pid: int, key: str) -> int:
    """Kilobytes, as the kernel counts them."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(key))


@SERVERS
@pytest.mark.timeout(400)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
async def test_a_hundred_thousand_rows_in_one_transaction_fit_into_memory(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind)
    me = world.orm.user("somebody")
    async with await RawClient.open(world.server) as good:
        await good.join("mine", MINE, token=token(me))
        await asyncio.to_thread(world.orm.note, owner=me, title="mine before")
        await good.until_row(title="mine before")
        before = memory(world.server.pid, "VmRSS")
        await asyncio.to_thread(world.orm.sql, BURST_SQL, [BURST])
        beat = await good.push("phoenix", "heartbeat", {})
        await asyncio.to_thread(world.orm.note, owner=me, title="mine after")
        await good.until_row(title="mine after", topic="realtime:mine")
        assert beat["status"] == "ok"
        titles = [change.data["record"]["title"] for change in good.changes()]
        assert titles == ["mine before", "mine after"]
        _, seq = world.orm.head()
        assert good.changes()[-1].data["seq"] == seq
        # Nothing was given up: no resync, and the peak is far below what the rows would take.
        assert not [f for f in good.frames if "resync" in f.text]
        grown = memory(world.server.pid, "VmHWM") - before
        print(f"{kind}: grown by {grown // 1024} MB")
        assert grown < 120 * 1024
