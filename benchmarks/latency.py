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


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def idle_cpu(server: Server, sockets: int, seconds: float) -> float:
    """Percent of one core that the server uses while nobody writes."""
    changes = [{"event": "*", "schema": "public", "table": TABLE}]
    clients = [
        await join(server, f"realtime:{n}", postgres_changes=changes) for n in range(sockets)
    ]
    await asyncio.sleep(2)
    before, began = cpu_seconds(server.pid), time.perf_counter()
    await asyncio.sleep(seconds)
    used = cpu_seconds(server.pid) - before
    elapsed = time.perf_counter() - began
    for client in clients:
        await client.close()
    return 100 * used / elapsed


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
    arguments = parser.parse_args()
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
