"""A whole deployment: a database, a Redis, servers, tailers and writers, each a real process.

Owns the processes and where they run. The clients are in `resuming_client.py`, the checks at the
end in `final_checks.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.acceptance.support.orm_process import OrmProcess
from tests.acceptance.support.server import PATIENCE, ROOT, Server
from tests.support.python import Python
from tests.support.redis import Redis
from tests.support.tokens import SECRET_KEY
from tests.support.waiting import until

_LOOK_SECONDS = 0.02


class Program:
    """One process that runs until it is ended; what it says goes into a file."""

    def __init__(
        self, name: str, command: Sequence[str], env: dict[str, str], folder: Path
    ) -> None:
        self.name = name
        self._command = command
        self._env = env
        self.log_path = folder / f"{name}.log"
        self._process: Python | None = None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        """Raises RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = Python(
                self._command,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def until_says(self, words: str, times: int = 1) -> None:
        """Returns when its output holds these words so often; of all its lives."""
        try:
            until(lambda: self.log.count(words) >= times, patience=PATIENCE, every=_LOOK_SECONDS)
        except AssertionError:
            raise RuntimeError(f"{self.name} never said {words!r}:\n{self.log}") from None

    def stop(self) -> int:
        """Ask it to end. Returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        return self._end(signal.SIGKILL)

    def finish(self) -> int:
        """Close its standard input, which ends those that read it. Returns its exit code."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        return self._wait(self._process)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        if process.stdin is not None:
            process.stdin.close()
        return self._wait(process)

    def _wait(self, process: Python) -> int:
        self._process = None
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)
            raise RuntimeError(f"{self.name} did not end:\n{self.log}") from None


class Node(Server):
    """A server process of a deployment."""

    def __init__(self, folder: Path, name: str, kind: str, env: dict[str, str]) -> None:
        super().__init__(folder / name, kind)
        self._environment = env


class DeploymentOrm(OrmProcess):
    """The ORM in the database that this environment names."""

    def __init__(self, env: dict[str, str]) -> None:
        self._start(env)


class Deployment:
    """Everything of one deployment. `database` is a URL of a migrated database."""

    def __init__(
        self,
        folder: Path,
        database: str,
        redis: Redis,
        layer: str = "pubsub",
        realtime: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.redis = redis
        self.env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings_many",
            "DJANGO_SECRET_KEY": SECRET_KEY,
            "DATABASE_URL": database,
            "REDIS_URL": redis.url,
            "ROWCAST_LAYER": layer,
            "ROWCAST_REALTIME": json.dumps(realtime or {}),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "default",
        }
        self.servers: list[Node] = []
        self.tailers: list[Program] = []
        self.workers: list[Program] = []
        self.writers: list[Program] = []
        self.orm = DeploymentOrm(self.env)

    def start(self, *kinds: str, tailers: int = 1) -> None:
        """Start tailers, and a server of each of these kinds; returns when all are at work."""
        for _ in range(tailers):
            name = f"tail-{len(self.tailers) + 1}"
            self.tailers.append(Program(name, ["manage.py", "tail_wal"], self.env, self.folder))
            self.tailers[-1].start()
        for kind in kinds:
            name = f"server-{len(self.servers) + 1}"
            self.servers.append(Node(self.folder, name, kind, self.env))
        with ThreadPoolExecutor() as pool:
            for started in [pool.submit(server.start) for server in self.servers]:
                started.result()
        for tailer in self.tailers:
            tailer.until_says("Tailing")
        if self.tailers:
            self.leader()

    def work(self) -> Program:
        """Start a worker; returns when it is at work."""
        command = ["manage.py", "runworker", "realtime"]
        worker = Program(f"worker-{len(self.workers) + 1}", command, self.env, self.folder)
        self.workers.append(worker)
        worker.start()
        worker.until_says("is ready")
        return worker

    def write(self, owners: list[int], pause: float = 0.01, connections: int = 1) -> None:
        """Start to write, over so many connections at once, until `finish_writing`."""
        name = f"writer-{len(self.writers) + 1}"
        arguments = [name, str(pause), str(connections), *map(str, owners)]
        command = ["-m", "tests.acceptance.support.writer", *arguments]
        env = {**self.env, "ROWCAST_SERVES": "nothing"}
        self.writers.append(Program(name, command, env, self.folder))
        self.writers[-1].start()

    def finish_writing(self) -> None:
        for writer in self.writers:
            code = writer.finish()
            if code:
                raise RuntimeError(f"{writer.name} ended with {code}:\n{writer.log}")

    def leader(self) -> Program:
        """The tailer that leads; waits until one does."""

        def leading() -> Program | None:
            ((leader,),) = self.orm.sql("SELECT leader FROM realtime_head") or [[""]]
            found = (one for one in self.tailers if one.running and f":{one.pid}:" in leader)
            return next(found, None)

        try:
            found: Program = until(leading, "a leader", patience=PATIENCE, every=_LOOK_SECONDS)
        except AssertionError:
            logs = "\n".join(tailer.log for tailer in self.tailers)
            raise RuntimeError(f"no tailer leads:\n{logs}") from None
        return found

    def end(self) -> None:
        """Nothing of it is left."""
        with contextlib.ExitStack() as parts:
            for part in (self.orm, *self.servers, *self.tailers, *self.workers, *self.writers):
                parts.callback(part.kill)

    @property
    def logs(self) -> str:
        programs = (*self.servers, *self.tailers, *self.workers, *self.writers)
        return "\n".join(f"--- {p.log_path.name}\n{p.log[-3000:]}" for p in programs)


@contextlib.contextmanager
def deployed(deployment: Deployment) -> Iterator[Deployment]:
    try:
        yield deployment
    finally:
        deployment.end()
