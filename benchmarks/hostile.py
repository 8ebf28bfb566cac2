"""All attacks at once, and a good client among them: `python -m benchmarks.hostile`.

One server process on SQLite. The attackers (`attackers.py`) are another process. The good client
listens to a table that is written all the time, heartbeats ten times a second, and joins anew now
and then. It must lose nothing, get nothing twice, and stay connected; the 99th percentile of its
heartbeats' answers must stay below 250 ms. Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.arrival import quantiles
from benchmarks.attackers import TABLE, changes
from benchmarks.programs import cpu_seconds, memory_kilobytes
from benchmarks.report import say, table
from tests.acceptance.support.orm_process import Hand
from tests.acceptance.support.server import (
    ANON_KEY,
    COMMANDS,
    PATIENCE,
    Server,
    make_database,
    running,
)

BEAT_SECONDS = 0.1
WRITE_SECONDS = 0.05
MOST_MILLISECONDS = 250.0


@dataclass
class Found:
    """What the good client saw. Times in milliseconds."""

    written: int = 0
    titles: list[str] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    attacks: dict[str, int] = field(default_factory=dict)
    megabytes: list[float] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def lost(self) -> list[str]:
        """Rows that did not come, came twice or came in another order."""
        wanted = [f"good {number}" for number in range(self.written)]
        if self.titles == wanted:
            return []
        return sorted(set(wanted) ^ set(self.titles)) or ["the order"]


class GoodClient:
    """A client that does what clients do."""

    def __init__(self, server: Server, found: Found) -> None:
        self._server = server
        self._found = found
        self._replies: dict[str, asyncio.Future[None]] = {}

    async def run(self, seconds: float) -> None:
        query = f"apikey={ANON_KEY}&vsn=2.0.0"
        async with connect(self._server.address(query=query), max_size=None) as socket:
            subscribed = asyncio.Event()
            reading = asyncio.create_task(self._read(socket, subscribed))
            wanted = changes(filter="title=like.good %")
            config = {"postgres_changes": [wanted]}
            await self._push(socket, "1", "realtime:good", "phx_join", {"config": config})
            await asyncio.wait_for(subscribed.wait(), PATIENCE)
            ended = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(ended))
                tasks.create_task(self._beat(socket, ended))
                tasks.create_task(self._join_anew(ended))
                await asyncio.sleep(seconds)
                ended.set()
            await self._until_complete()
            reading.cancel()

    async def _read(self, socket: ClientConnection, subscribed: asyncio.Event) -> None:
        async for text in socket:
            _, ref, _, event, payload = json.loads(text)
            if event == "postgres_changes":
                self._found.titles.append(payload["data"]["record"]["title"])
            elif event == "system":
                if payload["status"] == "ok":
                    subscribed.set()
                else:
                    self._found.problems.append(payload["message"])
            elif event == "phx_reply" and ref in self._replies:
                self._replies.pop(ref).set_result(None)
        self._found.problems.append(f"closed with {socket.close_code}")

    async def _push(
        self, socket: ClientConnection, ref: str, topic: str, event: str, payload: Any
    ) -> float:
        """Send a message; the milliseconds until its reply."""
        replied = self._replies[ref] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await socket.send(json.dumps(["1", ref, topic, event, payload]))
        await asyncio.wait_for(replied, PATIENCE)
        return (time.perf_counter() - began) * 1_000

    async def _beat(self, socket: ClientConnection, ended: asyncio.Event) -> None:
        number = 0
        while not ended.is_set():
            number += 1
            took = await self._push(socket, f"b{number}", "phoenix", "heartbeat", {})
            self._found.beats.append(took)
            await asyncio.sleep(BEAT_SECONDS)

    async def _join_anew(self, ended: asyncio.Event) -> None:
        query = f"apikey={ANON_KEY}&vsn=2.0.0"
        while not ended.is_set():
            began = time.perf_counter()
            async with connect(self._server.address(query=query)) as socket:
                config = {"postgres_changes": [changes(filter="title=eq.none")]}
                payload = {"config": config}
                await socket.send(json.dumps(["1", "1", "realtime:x", "phx_join", payload]))
                reply = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
                if reply[4].get("status") != "ok":
                    self._found.problems.append(f"join refused: {reply[4]}")
            self._found.joins.append((time.perf_counter() - began) * 1_000)
            await asyncio.sleep(1)

    async def _write(self, ended: asyncio.Event) -> None:
        writer = sqlite3.connect(
            self._server.database, isolation_level=None, timeout=60, check_same_thread=False
        )
        insert = f"INSERT INTO {TABLE} (title, body, is_public) VALUES (?, ?, 1)"
        with contextlib.closing(writer):
            while not ended.is_set():
                row = [f"good {self._found.written}", "b" * 200]
                await asyncio.to_thread(writer.execute, insert, row)
                self._found.written += 1
                await asyncio.sleep(WRITE_SECONDS)

    async def _until_complete(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while len(self._found.titles) < self._found.written and time.monotonic() < deadline:
            await asyncio.sleep(0.05)


async def attacked(server: Server, seconds: float) -> Found:
    """A good client among attackers, for so long."""
    found = Found()
    command = [sys.executable, "-m", "benchmarks.attackers", str(server.port), str(seconds)]
    used = cpu_seconds(server.pid)
    attackers = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        found.megabytes.append(memory_kilobytes(server.pid) / 1_024)
        await GoodClient(server, found).run(seconds)
        output, _ = await asyncio.wait_for(attackers.communicate(), PATIENCE)
        found.attacks = json.loads(output)
    finally:
        if attackers.returncode is None:
            attackers.kill()
            await attackers.wait()
    found.megabytes.append(memory_kilobytes(server.pid) / 1_024)
    found.cpu = cpu_seconds(server.pid) - used
    return found


def open_to_anyone(database: Path) -> Path:
    """Let anyone see the public notes of this database."""
    hand = Hand(database)
    hand.policy("public notes", {"is_public": True}, audience="anyone")
    hand.close()
    return database


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--server", choices=tuple(COMMANDS), default="fanout")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rowcast-hostile-") as folder:
        database = open_to_anyone(make_database(Path(folder) / "hostile.sqlite3"))
        with running(database, arguments.server) as server:
            found = asyncio.run(attacked(server, arguments.minutes * 60))
    keys = ("p50", "p95", "p99", "max")
    beats, joins = quantiles(found.beats), quantiles(found.joins)
    rows = [
        ["heartbeat", *(f"{beats[key]:.0f}" for key in keys)],
        ["connect and join", *(f"{joins[key]:.0f}" for key in keys)],
    ]
    say(table(["milliseconds", *keys], rows))
    say(f"\n\nattacks: {', '.join(f'{name} {count}' for name, count in found.attacks.items())}")
    say(
        f"\nserver: {found.cpu:.0f} s of CPU, {' -> '.join(f'{m:.0f}' for m in found.megabytes)} MB"
    )
    say(f"\nrows written {found.written}, lost or doubled {len(found.lost)}\n")
    problems = found.problems
    if found.lost:
        problems.append(f"rows: {', '.join(found.lost[:10])}")
    if beats["p99"] >= MOST_MILLISECONDS:
        problems.append(f"the 99th percentile of heartbeats is {beats['p99']:.0f} ms")
    for problem in problems:
        say(f"FAILED: {problem}\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
