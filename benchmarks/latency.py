"""The time from commit to socket, and the cost of an idle server: `python -m benchmarks.latency`.

Two figures of the embedded default (SQLite, one server process):

* The time from a committed INSERT to the frame at a client, compared with a broadcast from one
  client to another through the same server, which needs no database. The difference is the cost of
  capture, numbering, polling and policies.
* The CPU time of an idle server process with its tailer, compared with the same server without one.

Both sides alternate, in several rounds. Every frame is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.arrival import TABLE, WAIT, idle, join, quantiles
from benchmarks.chart import bars, spans
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table
from tests.acceptance.support.server import Server, make_database, running

ROW, BROADCAST = "a row, from its COMMIT", "a broadcast, relayed"
TAILING, NOT_TAILING = "with its tailer", "without one"
QUANTILES = ("p50", "p95", "p99", "max")


async def commit_to_socket(server: Server, samples: int) -> list[float]:
    """Milliseconds from just before the COMMIT of an INSERT to its frame."""
    changes = [{"event": "INSERT", "schema": "public", "table": TABLE}]
    socket = await join(server, "realtime:latency", postgres_changes=changes)
    writer = sqlite3.connect(server.database, isolation_level=None, timeout=20)
    took = []
    for number in range(samples):
        # Commits are spread over the tailer's interval, as those of real users are.
        await asyncio.sleep(0.05 + (number % 17) * 0.003)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(
            f"INSERT INTO {TABLE} (title, body, is_public) VALUES (?, '', 0)", [f"n{number}"]
        )
        began = time.perf_counter()
        writer.execute("COMMIT")
        frame = json.loads(await asyncio.wait_for(socket.recv(), WAIT))
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
        frame = json.loads(await asyncio.wait_for(receiver.recv(), WAIT))
        took.append((time.perf_counter() - began) * 1_000)
        assert frame[4] == message, frame
    await sender.close()
    await receiver.close()
    return took


async def idling(database: Path, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """The same server with its tailer and without, at the same time, while no row is written."""
    changes = [{"event": "*", "schema": "public", "table": TABLE}]
    external = {"TAILER": "external"}
    with (
        running(database, arguments.server) as tailing,
        running(database, arguments.server, external) as not_tailing,
    ):
        servers = {TAILING: tailing, NOT_TAILING: not_tailing}
        clients = [
            await join(server, f"realtime:{number}", postgres_changes=changes)
            for server in servers.values()
            for number in range(arguments.sockets)
        ]
        found = await idle(servers, clients, arguments.rounds, arguments.idle)
        await asyncio.gather(*[client.close() for client in clients])
    return found


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    took: dict[str, list[dict[str, float]]] = {ROW: [], BROADCAST: []}
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        database = make_database(Path(folder) / "bench.sqlite3")
        with running(database, arguments.server) as server:
            for _ in range(arguments.rounds):
                took[ROW].append(quantiles(await commit_to_socket(server, arguments.samples)))
                relayed = await socket_to_socket(server, max(2, arguments.samples // 2))
                took[BROADCAST].append(quantiles(relayed))
        return {"milliseconds": took, "idle_cpu_percent": await idling(database, arguments)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--server", choices=("daphne", "uvicorn"), default="daphne")
    parser.add_argument("--samples", type=int, default=200, help="rows a round")
    parser.add_argument("--sockets", type=int, default=20)
    parser.add_argument(
        "--idle", type=float, default=10.0, help="seconds to watch an idle server, a round"
    )
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments))
    took, idles = found["milliseconds"], found["idle_cpu_percent"]
    by_name = {
        name: {key: [one[key] for one in rounds] for key in rounds[0]}
        for name, rounds in took.items()
    }
    head = ["milliseconds: min / median / max of the rounds", *QUANTILES]
    rows = [
        [name, *(spread(figures[key], 1) for key in QUANTILES)] for name, figures in by_name.items()
    ]
    say(table(head, rows))
    idle_rows = [[name, spread(values, 2)] for name, values in idles.items()]
    say("\n" + table(["idle CPU, % of a core", "min / median / max"], idle_rows))
    comparisons = [
        Comparison(f"{key}, milliseconds", ROW, BROADCAST, ratios(*(by_name[n][key] for n in took)))
        for key in ("p50", "p95")
    ]
    by_round = ratios(idles[TAILING], idles[NOT_TAILING])
    comparisons.append(Comparison("idle CPU", TAILING, NOT_TAILING, by_round))
    middle = {
        name: {key: statistics.median(figures[key]) for key in QUANTILES}
        for name, figures in by_name.items()
    }
    resting = {name: statistics.median(values) for name, values in idles.items()}
    watched = f"An idle server with {arguments.sockets:,} sockets"
    drawn = [
        spans("How long until the other has it", middle, "milliseconds"),
        bars(watched, resting, "% of a core", ours=TAILING),
    ]
    conclude(arguments, found, comparisons, drawn)


if __name__ == "__main__":
    main()
