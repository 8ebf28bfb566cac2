"""What the bus costs, by the number of server processes: `python -m benchmarks.bus`.

PostgreSQL, Redis, a tailer (`manage.py tail_wal`) and up to 50 server processes: each a dispatcher
with subscriptions, its own end of the bus and its own head monitor, and no sockets. Rows are
written at a fixed rate while they run, in windows of some seconds:

* idle: no row; trickle: one row a second, so that the tailer looks as often as under load;
* small: transactions of one row that no subscription matches; large: of many such rows;
* matching: with a fifth of the rows, which some subscriptions of every server match, each with a
  frame of its own.

From trickle, small and large follows what a batch costs, and what an event within it (see
benchmarks/windows.py): CPU time of a server, of Redis, of the tailer and of PostgreSQL, and bytes
through Redis. From large and matching follows what a match costs. At last one transaction of many
rows is written: the rate at which it reaches a single server is that of a tailer without a pause.

CPU time is the kernel's count for each process, so other work on the machine changes it little.
Every server must get every event, and its channels every match. With fewer processes than servers
(--processes) several dispatchers share one, and its CPU time is divided by their number.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bus_server import MATCHED, TABLE, UNMATCHED
from benchmarks.chart import Panel, groups
from benchmarks.databases import url_of
from benchmarks.programs import PATIENCE, Failed, cpu_seconds
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table
from benchmarks.windows import Window, share
from tests.acceptance.support.deployment import Program
from tests.acceptance.support.server import ROOT, migrate
from tests.support.python import Python
from tests.support.redis import Redis
from tests.support.tokens import SECRET_KEY

LAYERS = ("pubsub", "core")
SETTLING = 2.0
# Between two looks whether every server has everything.
_LOOK = 0.05
_CATCHING_UP = 120.0
# Batches a second that all servers together get at most, so that one machine keeps up.
_MOST_BATCHES = 400.0
# The matching windows have fewer rows, because each makes many frames.
_FEWER = 5
# The counters, and by what a growth is multiplied to become microseconds or bytes.
COUNTERS = {
    "server_us": 1e6,
    "redis_us": 1e6,
    "tailer_us": 1e6,
    "database_writer_us": 1e6,
    "database_log_us": 1e6,
    "redis_in_bytes": 1.0,
    "redis_out_bytes": 1.0,
}
SAID = {
    "server_us": "a server process, CPU µs",
    "redis_us": "Redis, CPU µs",
    "tailer_us": "the tailer, CPU µs",
    "database_writer_us": "PostgreSQL for the writer, CPU µs",
    "database_log_us": "PostgreSQL for tailer and servers, CPU µs",
    "redis_in_bytes": "into Redis, bytes",
    "redis_out_bytes": "out of Redis, bytes",
}

# Figures of one number of servers, one per round.
Figures = dict[str, list[float]]


class ServerProcess:
    """A process of `benchmarks.bus_server`."""

    def __init__(self, dispatchers: int, arguments: argparse.Namespace, env: dict[str, str]):
        given = (dispatchers, arguments.subscriptions, arguments.matches)
        self._process = Python(
            ["-m", "benchmarks.bus_server", *map(str, given)],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def answer(self) -> dict[str, Any]:
        """The next line that it says. Raises Failed when it has ended."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"a server process ended with {self._process.wait(PATIENCE)}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self) -> None:
        """Have it say what it has done."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()


class World:
    """All processes, and one connection that writes."""

    def __init__(self, servers: int, folder: Path, layer: str, arguments: argparse.Namespace):
        import psycopg
        import redis

        self._arguments = arguments
        self._ends = contextlib.ExitStack()
        self._redis = Redis(folder)
        self._redis.start()
        self._ends.callback(self._redis.kill)
        self._asking = redis.Redis.from_url(self._redis.url)
        self._ends.callback(self._asking.close)
        env = {**environment(), "REDIS_URL": self._redis.url, "ROWCAST_LAYER": layer}
        self._tailer = Program("tailer", ["manage.py", "tail_wal"], env, folder)
        self._tailer.start()
        self._ends.callback(self._tailer.kill)
        self._tailer.until_says("Leading")
        self._connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
        self._ends.callback(self._connection.close)
        row = self._connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row
        self._writer = int(row[0])
        self.servers = servers
        self._processes: list[ServerProcess] = []
        self._start_servers(env)
        self._written = 0
        self._matched = 0

    def _start_servers(self, env: dict[str, str]) -> None:
        processes = min(self.servers, self._arguments.processes or self.servers)
        counts = [
            self.servers // processes + (n < self.servers % processes) for n in range(processes)
        ]
        self.subscription_kb = 0.0
        self.servers_per_process = self.servers / processes
        for start in range(0, processes, 4):
            # A few at a time, so that each is ready while others begin.
            some = [ServerProcess(n, self._arguments, env) for n in counts[start : start + 4]]
            for process in some:
                self._ends.callback(process.kill)
            self.subscription_kb = max(one.answer()["subscription_kb"] for one in some)
            self._processes += some
        time.sleep(SETTLING)

    def end(self) -> None:
        self._ends.close()

    def window(self, transactions: float, rows: int, score: int, seconds: float) -> Window:
        """Write at a fixed rate and wait until every server has everything."""
        before, began = self._read(), time.monotonic()
        period = 1 / transactions if transactions else seconds
        count = 0
        while (due := began + count * period) < began + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            if transactions:
                self._write(rows, score)
            count += 1
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        self._until_all_have_all()
        took = time.monotonic() - began
        after = self._read()
        grown = {name: after[name] - before[name] for name in after}
        servers = self.servers
        return Window(took, grown["batches"] / servers, grown["events"] / servers, grown)

    def _write(self, rows: int, score: int) -> None:
        sql = f"INSERT INTO {TABLE} (title, body, is_public, score) VALUES (%s, %s, false, %s)"
        body = "x" * self._arguments.bytes
        with self._connection.transaction(), self._connection.cursor() as cursor:
            for number in range(rows):
                cursor.execute(sql, (f"n{number}", body, score))
        self._count(rows, score)

    def _count(self, rows: int, score: int) -> None:
        self._written += rows
        if score == MATCHED:
            self._matched += rows

    def catch_up(self, rows: int) -> float:
        """Changes a second, from the commit of so many until every server has them."""
        # As autovacuum does in a database that is not new: without statistics numbering takes
        # several times as long.
        self._connection.execute("VACUUM ANALYZE")
        self._connection.execute(
            f"INSERT INTO {TABLE} (title, body, is_public, score)"
            " SELECT 'n', %s, false, %s FROM generate_series(1, %s)",
            ["x" * self._arguments.bytes, UNMATCHED, rows],
        )
        began = time.monotonic()
        self._count(rows, UNMATCHED)
        self._until_all_have_all()
        return rows / (time.monotonic() - began)

    def _until_all_have_all(self) -> None:
        deadline = time.monotonic() + _CATCHING_UP
        while True:
            done = [one for answer in self._answers() for one in answer["servers"]]
            if all(one["events"] >= self._written for one in done):
                frames = self._matched * self._arguments.matches
                for one in done:
                    if one["frames"] != frames or one["events"] != self._written:
                        raise Failed(f"{self._written} changes, {frames} frames, and got {one}")
                return
            if time.monotonic() > deadline:
                fewest = min(one["events"] for one in done)
                raise Failed(
                    f"{self._written} changes, and after {_CATCHING_UP:g} s a server has {fewest}:"
                    " the machine does not keep up; take fewer --servers or --transactions"
                )
            time.sleep(_LOOK)

    def row_bytes(self) -> float:
        """The image of the newest row."""
        return float(self._answers()[0]["servers"][0]["row_bytes"])

    def _answers(self) -> list[dict[str, Any]]:
        for process in self._processes:
            process.ask()
        return [process.answer() for process in self._processes]

    def _read(self) -> dict[str, float]:
        """All counters now. Those of servers are sums."""
        answers = self._answers()
        done = [one for answer in answers for one in answer["servers"]]
        found = {name: float(sum(one[name] for one in done)) for name in done[0]}
        found["server_us"] = sum(answer["cpu"] for answer in answers)
        cpu: Any = self._asking.info("cpu")
        traffic: Any = self._asking.info("stats")
        found["redis_us"] = cpu["used_cpu_user"] + cpu["used_cpu_sys"]
        found["redis_in_bytes"] = traffic["total_net_input_bytes"]
        found["redis_out_bytes"] = traffic["total_net_output_bytes"]
        found["tailer_us"] = cpu_seconds(self._tailer.pid)
        found["database_writer_us"] = cpu_seconds(self._writer)
        found["database_log_us"] = sum(
            cpu_seconds(pid) for pid in children(self._postmaster) if pid != self._writer
        )
        return found

    @property
    def _postmaster(self) -> int:
        return int(Path(f"/proc/{self._writer}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    """The processes that this one has started and that run."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment() -> dict[str, str]:
    """Of every process of the benchmark but for Redis."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings_many",
        "DJANGO_SECRET_KEY": SECRET_KEY,
        "ROWCAST_REALTIME": "{}",
    }


@contextlib.contextmanager
def world(servers: int, folder: Path, layer: str, arguments: argparse.Namespace) -> Iterator[World]:
    made = World(servers, folder, layer, arguments)
    try:
        yield made
    finally:
        made.end()


def figures_of(world: World, arguments: argparse.Namespace) -> dict[str, float]:
    """The figures of one round."""
    many, seconds = arguments.rows, arguments.seconds
    # The same for every number of servers, because a batch costs more after a longer pause.
    rate = min(arguments.transactions, _MOST_BATCHES / max(arguments.servers))
    idle = world.window(0, 0, UNMATCHED, seconds)
    trickle = world.window(1, 1, UNMATCHED, seconds)
    small = world.window(rate, 1, UNMATCHED, seconds)
    large = world.window(rate, many, UNMATCHED, seconds)
    matching = world.window(rate, max(2, many // _FEWER), MATCHED, seconds)
    found: dict[str, float] = {
        "subscription_kb": world.subscription_kb,
        "servers_per_process": world.servers_per_process,
    }
    for name, unit in COUNTERS.items():
        of = share(name, trickle, small, large)
        # Of one server, where all of them were counted together.
        each = unit / world.servers if name.startswith("server") else unit
        found[f"{name}_idle_second"] = idle.grown[name] / idle.seconds * each
        found[f"{name}_second"] = of.second * each
        found[f"{name}_batch"] = of.batch * each
        found[f"{name}_event"] = of.event * each
    unmatched = share("server_us", trickle, small, large)
    rest = matching.grown["server_us"] / world.servers - (
        unmatched.second / world.servers * matching.seconds
        + unmatched.batch / world.servers * matching.batches
        + unmatched.event / world.servers * matching.events
    )
    found["server_us_match"] = rest * 1e6 / (matching.events * arguments.matches)
    found["frame_bytes"] = matching.grown["frame_bytes"] / matching.grown["frames"]
    found["row_bytes"] = world.row_bytes()
    found["healed"] = sum(one.grown["healed"] for one in (trickle, small, large, matching))
    return found


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Figures]]:
    results: dict[str, dict[str, Figures]] = {layer: {} for layer in arguments.layers}
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as name, url_of("postgresql", name):
        migrate({**environment(), "REDIS_URL": "redis://127.0.0.1:1/0"})
        for servers in arguments.servers:
            for layer in arguments.layers:
                folder = Path(name) / f"{layer}-{servers}"
                folder.mkdir()
                say(f"{servers} servers, {layer}\n")
                found: Figures = {}
                with world(servers, folder, layer, arguments) as made:
                    for _ in range(arguments.rounds):
                        for what, value in figures_of(made, arguments).items():
                            found.setdefault(what, []).append(value)
                    if servers == min(arguments.servers):
                        for _ in range(arguments.rounds):
                            rate = made.catch_up(arguments.catch_up)
                            found.setdefault("changes_per_second", []).append(rate)
                results[layer][str(servers)] = found
    return results


def tables(results: dict[str, dict[str, Figures]]) -> None:
    for layer, by_servers in results.items():
        head = [f"{layer}: min / median / max", *(f"{n} servers" for n in by_servers)]
        rows = []
        for name, said in SAID.items():
            for part in ("idle_second", "second", "batch", "event", "match"):
                key = f"{name}_{part}"
                if all(key in figures for figures in by_servers.values()):
                    about = part.replace("idle_second", "second at rest")
                    cells = [spread(figures[key], 1) for figures in by_servers.values()]
                    rows.append([f"{said}, a {about}".replace("a event", "an event"), *cells])
        say("\n" + table(head, rows))
        for figures in by_servers.values():
            if "changes_per_second" in figures:
                caught = spread(figures["changes_per_second"])
                say(f"\nwithout a pause, changes a second: {caught}\n")


def compared(results: dict[str, dict[str, Figures]]) -> list[Comparison]:
    """What an event costs a server among many, beside what it costs a server alone."""
    found = []
    for layer, by_servers in results.items():
        few, many = min(by_servers, key=int), max(by_servers, key=int)
        if few != many:
            for part in ("batch", "event"):
                key = f"server_us_{part}"
                by_round = ratios(by_servers[many][key], by_servers[few][key])
                said = f"CPU of a server, {layer}, a {part}".replace("a event", "an event")
                found.append(Comparison(said, f"{many} servers", few, by_round))
    return found


def drawn(results: dict[str, dict[str, Figures]]) -> list[Panel]:
    middle = statistics.median
    panels = []
    for layer, by_servers in results.items():
        costs = {
            f"{servers} servers": {
                part: middle(figures[f"server_us_{part}"]) for part in ("event", "match")
            }
            for servers, figures in by_servers.items()
        }
        title = f"What a server pays for an event, and more for a match, {layer}"
        panels.append(groups(title, costs, "CPU microseconds", ours="event"))
    return panels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", nargs="+", type=int, default=[1, 10, 50])
    parser.add_argument("--processes", type=int, help="at most; several dispatchers share one then")
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--subscriptions", type=int, default=1_000, help="of each server")
    parser.add_argument("--matches", type=int, default=10, help="of each server, where some match")
    parser.add_argument(
        "--transactions", type=float, default=20.0, help="a second, fewer with many servers"
    )
    parser.add_argument("--rows", type=int, default=50, help="of a large transaction")
    parser.add_argument("--bytes", type=int, default=100, help="of the text of a row")
    parser.add_argument("--catch-up", type=int, default=20_000, help="rows written at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window")
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    if arguments.matches > arguments.subscriptions or arguments.rows < 2:
        parser.error("--matches must be at most --subscriptions, and --rows at least 2")
    try:
        results = measure(arguments)
    except Failed as error:
        sys.exit(str(error))
    tables(results)
    conclude(arguments, results, compared(results), drawn(results))


if __name__ == "__main__":
    main()
