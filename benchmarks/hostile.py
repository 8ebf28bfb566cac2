"""All attacks at once, and a good client among them: `python -m benchmarks.hostile`.

For each server (uvicorn with the fast path, plain uvicorn, daphne) one process on a database of its
own, SQLite or PostgreSQL, with or without Redis for the channel layer. The attackers
(`attackers.py`) are another process. The good client listens to a table that is written all the
time, heartbeats ten times a second, and joins anew now and then. It must lose nothing, get nothing
twice, and stay connected; the 99th percentile of its heartbeats' answers must stay below 250 ms;
the server must not grow beyond a bound, must be level in the second half of the run, and must log
no traceback. An idle process beside them says how late the machine itself was (`idle.py`). Exits
with 1 where a promise was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.arrival import quantiles
from benchmarks.attackers import ATTACKS, TABLE, changes
from benchmarks.databases import VENDORS, connected, layer_on_redis, url_of
from benchmarks.programs import beside, cpu_seconds, memory_kilobytes
from benchmarks.report import Promise, say, table, table_of_promises
from tests.acceptance.support.orm_process import OrmProcess
from tests.acceptance.support.server import (
    ANON_KEY,
    PATIENCE,
    Server,
    make_database,
    running,
)

SERVERS = ("fanout", "uvicorn", "daphne")
BEAT_SECONDS = 0.1
WRITE_SECONDS = 0.05
MOST_MILLISECONDS = 250.0
MOST_MEGABYTES = 250.0
# The most that the peak of the second half of a run may be above that of the first, where the run
# is long enough for every cache to be full in the first half.
LEVEL_MEGABYTES = 50.0
LEVEL_SECONDS = 50.0
SAMPLE_SECONDS = 1.0
# Events in the server's memory. The default of 10,000 takes some ten minutes to come together, and
# memory rises as long; this takes a minute.
RING_SIZE = 1_000
# Characters of the server's log.
_LOG_SHOWN = 3_000


@dataclass
class Found:
    """What the good client saw. Times in milliseconds."""

    written: int = 0
    titles: list[str] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    attacks: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    #: At the start, and about once a second.
    megabytes: list[float] = field(default_factory=list)
    cpu: float = 0.0
    idle: list[float] = field(default_factory=list)
    tracebacks: int = 0
    log: str = ""

    @property
    def lost(self) -> list[str]:
        """Rows that did not come, came twice or came in another order."""
        wanted = [f"good {number}" for number in range(self.written)]
        if self.titles == wanted:
            return []
        return sorted(set(wanted) ^ set(self.titles)) or ["the order"]

    def promises(self) -> list[Promise]:
        """What is promised to a good client among attackers, and what became of it."""
        lost, problems = self.lost, self.problems
        p99 = quantiles(self.beats)["p99"] if self.beats else float("inf")
        grown = max(self.megabytes) - self.megabytes[0] if self.megabytes else 0.0
        unmade = [name for name, count in self.attacks.items() if not count]
        return [
            Promise(
                "every row comes once, in order",
                f"{self.written} written, {len(lost)} lost or doubled {' '.join(lost[:5])}",
                bool(self.written) and not lost,
            ),
            Promise(
                "the good client is served and stays connected",
                "; ".join(problems) or "no refusal, no close",
                not problems,
            ),
            Promise(
                f"heartbeats: p99 below {MOST_MILLISECONDS:.0f} ms",
                f"{p99:.0f} ms of {len(self.beats)}",
                p99 < MOST_MILLISECONDS,
            ),
            Promise(
                f"the server grows by less than {MOST_MEGABYTES:.0f} MB",
                f"{grown:+.0f} MB",
                grown < MOST_MEGABYTES,
            ),
            *self._level(),
            Promise("no traceback in the server's log", str(self.tracebacks), not self.tracebacks),
            Promise(
                "every attack was made",
                f"{len(self.attacks)} attacks; not made: {' '.join(unmade) or 'none'}",
                bool(self.attacks) and not unmade,
            ),
        ]

    def _level(self) -> list[Promise]:
        """That the server's memory was level, where the run was long enough to say."""
        middle = len(self.megabytes) // 2
        if self.seconds < LEVEL_SECONDS or not middle:
            return []
        rise = max(self.megabytes[middle:]) - max(self.megabytes[:middle])
        return [
            Promise(
                f"its memory is level: the second half's peak is at most {LEVEL_MEGABYTES:.0f} MB "
                "above the first's",
                f"{rise:+.0f} MB",
                rise <= LEVEL_MEGABYTES,
            )
        ]


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
                if payload["message"] == "resync required":
                    self._found.problems.append("told to resync")
                elif payload["status"] == "ok":
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
        writer, given = connected(self._server.database)
        values = ", ".join([given] * 3)
        insert = f"INSERT INTO {TABLE} (title, body, is_public) VALUES ({values})"
        with contextlib.closing(writer):
            while not ended.is_set():
                row = [f"good {self._found.written}", "b" * 200, True]
                await asyncio.to_thread(writer.execute, insert, row)
                self._found.written += 1
                await asyncio.sleep(WRITE_SECONDS)

    async def _until_complete(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while len(self._found.titles) < self._found.written and time.monotonic() < deadline:
            await asyncio.sleep(0.05)


async def attacked(server: Server, seconds: float, names: Sequence[str] = ()) -> Found:
    """A good client among attackers, for so long. What goes wrong is among the problems."""
    found = Found(seconds=seconds)
    used = cpu_seconds(server.pid)
    found.megabytes.append(memory_kilobytes(server.pid) / 1_024)
    async with beside("benchmarks.idle", str(10 * seconds + PATIENCE)) as idle:
        async with beside(
            "benchmarks.attackers", str(server.port), str(seconds), *names
        ) as attackers:
            sampling = asyncio.create_task(_sample(server, found))
            try:
                await GoodClient(server, found).run(seconds)
            except* Exception as failed:
                found.problems += map(repr, failed.exceptions)
            sampling.cancel()
            output, _ = await asyncio.wait_for(attackers.communicate(), PATIENCE)
            found.attacks = json.loads(output)
        output, _ = await asyncio.wait_for(idle.communicate(b"\n"), PATIENCE)
        found.idle = json.loads(output)
    if server.running:
        found.megabytes.append(memory_kilobytes(server.pid) / 1_024)
        found.cpu = cpu_seconds(server.pid) - used
    else:
        found.problems.append("the server has died")
    found.log = server.log
    found.tracebacks = found.log.count("Traceback")
    return found


async def _sample(server: Server, found: Found) -> None:
    """Note the server's memory until this is cancelled, or the server has died."""
    while server.running:
        await asyncio.sleep(SAMPLE_SECONDS)
        with contextlib.suppress(OSError):
            found.megabytes.append(memory_kilobytes(server.pid) / 1_024)


def open_to_anyone(database: Path) -> Path:
    """Let anyone see the public notes of this database."""
    orm = OrmProcess(database)
    orm.policy("public notes", {"is_public": True}, audience="anyone")
    orm.close()
    return database


def report(kind: str, found: Found) -> bool:
    """Say what was found with one server; whether every promise was kept."""
    keys = ("p50", "p95", "p99", "max")
    measured = {
        "heartbeat": found.beats,
        "connect and join": found.joins,
        "an idle process beside it": found.idle,
    }
    rows = []
    for name, values in measured.items():
        some = quantiles(values) if values else dict.fromkeys(keys, float("nan"))
        rows.append([name, *(f"{some[key]:.1f}" for key in keys)])
    say(f"\n{kind}\n\n{table(['milliseconds', *keys], rows)}")
    counts = ", ".join(f"{name} {count}" for name, count in found.attacks.items())
    shown = found.megabytes[:: max(1, len(found.megabytes) // 10)]
    grown = " -> ".join(f"{size:.0f}" for size in shown)
    say(f"\nattacks: {counts}\nserver: {found.cpu:.0f} s of CPU, {grown} MB\n\n")
    promises = found.promises()
    say(table_of_promises(promises))
    kept = all(each.kept for each in promises)
    if not kept:
        say(f"\nThe end of the server's log:\n{found.log[-_LOG_SHOWN:]}\n")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10.0, help="for each server; 10")
    length.add_argument("--seconds", type=float)
    parser.add_argument("--server", choices=SERVERS, action="append", help="all; may be repeated")
    parser.add_argument("--database", choices=VENDORS, default="sqlite", help="sqlite")
    parser.add_argument("--redis", action="store_true", help="a channel layer on Redis")
    parser.add_argument(
        "--attack",
        choices=[attack.__name__ for attack in ATTACKS],
        action="append",
        default=[],
        help="all at once; may be repeated",
    )
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60 if arguments.seconds is None else arguments.seconds
    verdicts = {}
    for kind in dict.fromkeys(arguments.server or SERVERS):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rowcast-hostile-"))
            stack.enter_context(url_of(arguments.database, folder))
            settings: dict[str, Any] = {"RING_SIZE": RING_SIZE}
            if arguments.redis:
                stack.enter_context(layer_on_redis(Path(folder)))
                settings["TAILER"] = "embedded"
            database = open_to_anyone(make_database(Path(folder) / "attacked.sqlite3"))
            server = stack.enter_context(running(database, kind, settings))
            found = asyncio.run(attacked(server, seconds, arguments.attack))
        verdicts[kind] = report(kind, found)
    say(f"\nAfter {seconds:.0f} s with each server:\n")
    for kind, kept in verdicts.items():
        say(f"{'PASS' if kept else 'FAIL'} {kind}\n")
    sys.exit(not all(verdicts.values()))


if __name__ == "__main__":
    main()
