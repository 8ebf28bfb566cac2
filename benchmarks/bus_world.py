"""The processes whose bus is measured, for `benchmarks.bus`: started, written for, and counted."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bus_server import MATCHED, TABLE, UNMATCHED
from benchmarks.programs import PATIENCE, Failed, cpu_seconds
from benchmarks.windows import Window
from tests.acceptance.support.deployment import Program
from tests.acceptance.support.server import ROOT
from tests.support.python import Python
from tests.support.redis import Redis
from tests.support.tokens import SECRET_KEY

SETTLING = 2.0
# Between two looks whether every server has everything.
_LOOK = 0.05
_CATCHING_UP = 120.0


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
