"""From commit to socket, and what waiting costs: `python -m benchmarks.latency`.

Two questions about the embedded default (SQLite, one server process):

* How long from a committed INSERT to the frame at a client? Measured against the same server
  relaying a broadcast from one client to another, which touches no database: what is more is the
  price of capture, numbering, polling and policies.
* What does an idle system cost? Measured in CPU time of the server process with its tailer, against
  the same server without one.

Prints a table and writes JSON beside it with --json. Every frame is checked to be the right one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.acceptance.server import SERVICE_KEY, Server, make_database, running

TABLE = "zoo_note"
_TICKS = os.sysconf("SC_CLK_TCK")
_WAIT = 10.0
# Sockets that are opened together.
_AT_ONCE = 25


async def join(server: Server, topic: str, **config: Any) -> ClientConnection:
    """A joined socket that may see everything."""
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


async def commit_to_socket(server: Server, samples: int) -> list[float]:
    """Milliseconds from just before the COMMIT of an INSERT to its frame."""
    changes = [{"event": "INSERT", "schema": "public", "table": TABLE}]
    socket = await join(server, "realtime:latency", postgres_changes=changes)
    writer = sqlite3.connect(server.database, isolation_level=None, timeout=20)
    took = []
    for number in range(samples):
        # Spread over the tailer's interval, as commits of real users are.
        await asyncio.sleep(0.05 + (number % 17) * 0.003)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(
            f"INSERT INTO {TABLE} (title, body, is_public) VALUES (?, '', 0)", [f"n{number}"]
        )
        began = time.perf_counter()
        writer.execute("COMMIT")
        frame = json.loads(await asyncio.wait_for(socket.recv(), _WAIT))
        took.append((time.perf_counter() - began) * 1_000)
        assert frame[4]["data"]["record"]["title"] == f"n{number}", frame
    writer.close()
    await socket.close()
    return took


async def socket_to_socket(server: Server, samples: int) -> list[float]:
    """Milliseconds for a broadcast from one client to another through the same server."""
    sender, receiver = await join(server, "realtime:echo"), await join(server, "realtime:echo")
    took = []
    for number in range(samples):
        await asyncio.sleep(0.11)  # under the default limit of ten a second
        message = {"type": "broadcast", "event": "e", "payload": {"n": number}}
        began = time.perf_counter()
        await sender.send(json.dumps(["1", "9", "realtime:echo", "broadcast", message]))
        frame = json.loads(await asyncio.wait_for(receiver.recv(), _WAIT))
        took.append((time.perf_counter() - began) * 1_000)
        assert frame[4] == message, frame
    await sender.close()
    await receiver.close()
    return took


async def listeners(server: Server, count: int) -> list[ClientConnection]:
    """Sockets of which each is concerned by every `count`-th change that `arrival` writes."""
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


async def arrival(
    server: Server, sockets: list[ClientConnection], rate: int, seconds: float
) -> dict[str, float]:
    """Milliseconds from just before an INSERT to its frame, at so many changes a second, written
    by another process in a transaction every 20 ms or less often. The first second is not taken.

    A monotonic clock is one for all processes of a machine, so a row brings its own beginning.
    """
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
        *("-m", "benchmarks.latency", "--write", str(rate)),
        *("--seconds", str(seconds + 1), "--sockets", str(len(sockets))),
        env={**os.environ, "SQLITE_PATH": str(server.database)},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await writer.communicate()
    assert writer.returncode == 0
    written, spent = json.loads(said)
    deadline = time.monotonic() + _WAIT
    while arrived < written and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert arrived == written, f"{arrived} of {written} frames came"
    return {**quantiles(took), "frames": arrived, "per_second": written / spent}


def write(rate: int, seconds: float, sockets: int) -> None:
    """The writer's process: prints how many rows it wrote, and in how many seconds."""
    url = os.environ.get("DATABASE_URL")
    sql = f"INSERT INTO {TABLE} (title, body, is_public, score) VALUES (?, '', ?, ?)"
    if url:
        import psycopg

        database: Any = psycopg.connect(url, autocommit=True)
        sql = sql.replace("?", "%s")
    else:
        path = os.environ["SQLITE_PATH"]
        database = sqlite3.connect(path, isolation_level=None, timeout=20)
    period = max(0.02, 1 / rate)
    each = round(rate * period)
    cursor = database.cursor()
    count, began = 0, time.monotonic()
    while (due := began + count // each * period) < began + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        cursor.execute("BEGIN" if url else "BEGIN IMMEDIATE")
        for _ in range(each):
            cursor.execute(sql, (str(time.monotonic_ns()), False, count % sockets))
            count += 1
        cursor.execute("COMMIT")
    database.close()
    sys.stdout.write(json.dumps([count, time.monotonic() - began]))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def idle_cpu(server: Server, sockets: int, seconds: float) -> float:
    """Percent of one core that the server uses while nobody writes."""
    changes = [{"event": "*", "schema": "public", "table": TABLE}]
    clients = [
        await join(server, f"realtime:{n}", postgres_changes=changes) for n in range(sockets)
    ]
    used = await cpu_percent(server.pid, seconds)
    for client in clients:
        await client.close()
    return used


async def cpu_percent(pid: int, seconds: float) -> float:
    """Percent of one core that a process uses."""
    await asyncio.sleep(2)
    before, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.perf_counter() - began)


def quantiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        database = make_database(Path(folder) / "bench.sqlite3")
        idle = {}
        with running(database, arguments.server) as server:
            commits = await commit_to_socket(server, arguments.samples)
            relays = await socket_to_socket(server, arguments.samples // 2)
            idle["tailing"] = await idle_cpu(server, arguments.sockets, arguments.idle)
        with running(database, arguments.server, {"TAILER": "external"}) as server:
            idle["not tailing"] = await idle_cpu(server, arguments.sockets, arguments.idle)
    return {
        "server": arguments.server,
        "commit_to_socket_ms": quantiles(commits),
        "socket_to_socket_ms": quantiles(relays),
        "ratio_of_medians": statistics.median(commits) / statistics.median(relays),
        "idle_cpu_percent": idle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--server", choices=("daphne", "uvicorn"), default="daphne")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--sockets", type=int, default=20)
    parser.add_argument("--idle", type=float, default=10.0, help="seconds to watch an idle server")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write, arguments.seconds, arguments.sockets)
        return
    result = asyncio.run(measure(arguments))
    for name in ("commit_to_socket_ms", "socket_to_socket_ms"):
        row = "  ".join(f"{key} {value:7.2f}" for key, value in result[name].items())
        sys.stdout.write(f"{name:22} {row}\n")
    sys.stdout.write(f"ratio of medians       {result['ratio_of_medians']:.1f}\n")
    for name, percent in result["idle_cpu_percent"].items():
        sys.stdout.write(f"idle CPU, {name:12} {percent:.2f} % of a core\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
