"""Measures how fast rows arrive, and the CPU time of an idle server, for `latency` and `writes`.

Run as a program it is the writer, in a process of its own: RATE SECONDS SOCKETS.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.databases import connected
from benchmarks.programs import cpu_seconds
from tests.acceptance.support.server import SERVICE_KEY, Server

TABLE = "zoo_note"
WAIT = 10.0
# Sockets that are opened at the same time.
_AT_ONCE = 25
# Seconds before an idle server is measured.
_SETTLING = 2.0


async def join(server: Server, topic: str, **config: Any) -> ClientConnection:
    """A joined socket that may see all rows."""
    socket = await connect(server.address(query=f"apikey={SERVICE_KEY}&vsn=2.0.0"))
    await socket.send(json.dumps(["1", "1", topic, "phx_join", {"config": config}]))
    while True:
        frame = json.loads(await socket.recv())
        if frame[3] == "phx_reply":
            assert frame[4]["status"] == "ok", frame
            if not config.get("postgres_changes"):
                return socket
        if frame[3] == "system":
            return socket


async def listeners(server: Server, count: int) -> list[ClientConnection]:
    """Joined sockets, each of which gets every `count`-th change that `arrival` writes."""
    found: list[ClientConnection] = []
    for start in range(0, count, _AT_ONCE):
        numbers = range(start, min(count, start + _AT_ONCE))
        found += await asyncio.gather(
            *[
                join(
                    server,
                    "realtime:mine",
                    postgres_changes=[
                        {"event": "INSERT", "schema": "public", "table": TABLE}
                        | {"filter": f"score=eq.{number}"}
                    ],
                )
                for number in numbers
            ]
        )
    return found


async def beat(sockets: list[ClientConnection]) -> None:
    """Send a heartbeat from each socket, because a server closes a socket that is silent for a
    minute."""
    for socket in sockets:
        await socket.send(json.dumps([None, "0", "phoenix", "heartbeat", {}]))
    for socket in sockets:
        # The last frames of the join come before the answer.
        while json.loads(await asyncio.wait_for(socket.recv(), WAIT))[3] != "phx_reply":
            pass


async def arrival(
    server: Server, sockets: list[ClientConnection], rate: int, seconds: float
) -> dict[str, float]:
    """Milliseconds from just before an INSERT to its frame, at so many changes a second. Another
    process writes them, in a transaction every 20 ms or less often. The first second is left out.

    All processes of a machine share the monotonic clock, so a row contains the time of its INSERT.
    """
    await beat(sockets)
    took: list[float] = []
    arrived = 0
    began = time.monotonic()

    async def listen(socket: ClientConnection) -> None:
        nonlocal arrived
        async for message in socket:
            now = time.monotonic_ns()
            written = int(json.loads(message)[4]["data"]["record"]["title"])
            arrived += 1
            if written / 1e9 > began + 1:
                took.append((now - written) / 1e6)

    tasks = [asyncio.create_task(listen(socket)) for socket in sockets]
    writer = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.arrival", str(rate), str(seconds + 1), str(len(sockets))),
        env={**os.environ, "SQLITE_PATH": str(server.database)},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await writer.communicate()
    assert writer.returncode == 0
    written, spent = json.loads(said)
    deadline = time.monotonic() + WAIT
    while arrived < written and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert arrived == written, f"{arrived} of {written} frames came"
    return {**quantiles(took), "frames": arrived, "per_second": written / spent}


def write(rate: int, seconds: float, sockets: int) -> None:
    """The writer's process: prints the number of rows that it wrote, and the seconds."""
    database, given = connected(os.environ["SQLITE_PATH"])
    values = ", ".join([given] * 3)
    sql = f"INSERT INTO {TABLE} (title, is_public, score, body) VALUES ({values}, '')"
    period = max(0.02, 1 / rate)
    each = round(rate * period)
    cursor = database.cursor()
    count, began = 0, time.monotonic()
    while (due := began + count // each * period) < began + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        cursor.execute("BEGIN IMMEDIATE" if given == "?" else "BEGIN")
        for _ in range(each):
            cursor.execute(sql, (str(time.monotonic_ns()), False, count % sockets))
            count += 1
        cursor.execute("COMMIT")
    database.close()
    sys.stdout.write(json.dumps([count, time.monotonic() - began]))


async def idle(
    servers: Mapping[str, Server],
    sockets: list[ClientConnection],
    rounds: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Percent of one core that each server uses while no row is written: a figure per round. The
    servers alternate.

    `sockets` are those of all servers; each sends a heartbeat before each round.
    """
    found: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(rounds):
        await beat(sockets)
        await asyncio.sleep(_SETTLING)
        for name, server in servers.items():
            before, began = cpu_seconds(server.pid), time.perf_counter()
            await asyncio.sleep(seconds)
            used = cpu_seconds(server.pid) - before
            found[name].append(100 * used / (time.perf_counter() - began))
    return found


def quantiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}


if __name__ == "__main__":
    given, during, listening = sys.argv[1:]
    write(int(given), float(during), int(listening))
