"""`scripts/stack`: the demo as a deployment, every part a process, all ended by Ctrl-C.

A part that dies is started again after a second, so that anybody may kill one and watch what the
others do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VAR = ROOT / "var" / "stack"
_PATIENCE = 60.0
_GRACE = 15.0
_LOOK = 0.2
_AGAIN = 1.0

APPLICATION = "realtime_project.asgi:application"


class Failure(Exception):
    """Why the stack cannot run, as a message for the caller."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Part:
    """One process of the deployment."""

    def __init__(self, name: str, command: list[str], env: dict[str, str]) -> None:
        self.name = name
        self._command = [sys.executable, *command]
        self._env = env
        self._due = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (VAR / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches this program only, which ends the parts in order.
                start_new_session=True,
            )

    def look(self) -> None:
        """Start it again when it has died."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            say(f"{self.name} ended with {self._process.returncode}; it starts again")
            self._process, self._due = None, now + _AGAIN
        if self._process is None and now >= self._due:
            self.start()

    def tell(self) -> None:
        """Ask it to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        """Until it has ended, one way or the other."""
        if self._process is None:
            return
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def manage(*arguments: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failure(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def database() -> Iterator[str]:
    """The URL of a PostgreSQL: the given one, or that of a server started for as long as this
    runs."""
    if given := os.environ.get("DATABASE_URL", ""):
        yield given
        return
    from tests.support import postgres

    if reason := postgres.missing():
        raise Failure(f"{reason}, or name one in DATABASE_URL")
    server = postgres.Postgres(_database_folder())
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def _database_folder() -> Path:
    folder = VAR / "postgresql"
    if os.geteuid() == 0 and any(not p.stat().st_mode & 0o001 for p in VAR.parents):
        # PostgreSQL refuses to run as root, and another user may not enter the folders above this
        # one.
        folder = Path(tempfile.gettempdir()) / "rowcast-stack"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """The URL of a Redis: the given one, or that of a server started for as long as this runs."""
    from tests.support import redis as redises

    if reason := redises.missing():
        raise Failure(f"{reason}")
    server = redises.Redis(VAR)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def until_open(port: int, part: Part) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        if time.monotonic() > deadline:
            raise Failure(f"{part.name} does not answer; see {VAR / part.name}.log")
        time.sleep(_LOOK)


def check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            raise Failure(f"port {port} is taken; choose others with PORT=8100") from None


def run(arguments: list[str]) -> None:
    """Everything, until a signal. Raises Failure."""
    if set(arguments) - {"--reset"}:
        raise Failure(f"unknown argument {arguments[0]}; there is only --reset")
    port = os.environ.get("PORT", "8000")
    if not port.isdecimal():
        raise Failure(f"PORT must be a number, not {port}")
    ports = (int(port), int(port) + 1)
    for one in ports:
        check_free(one)
    if "--reset" in arguments:
        shutil.rmtree(VAR, ignore_errors=True)
    VAR.mkdir(parents=True, exist_ok=True)
    with database() as database_url, redis() as redis_url:
        env = {
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "PYTHONUNBUFFERED": "1",
        }
        manage("migrate", "--verbosity", "0", env=env)
        logins = manage("load_demo", *arguments, env=env)
        manage("tail_wal", "--once", "--verbosity", "0", env=env)
        servers = [Part(f"server-{one}", _server(one), env) for one in ports]
        tailers = [Part(f"tail-{n}", ["manage.py", "tail_wal"], env) for n in (1, 2)]
        worker = Part("worker", ["manage.py", "runworker", "realtime"], env)
        parts = [*tailers, worker, *servers]
        try:
            for part in parts:
                part.start()
            for one, server in zip(ports, servers, strict=True):
                until_open(one, server)
            say(_welcome(ports, logins.rstrip()))
            while True:
                for part in parts:
                    part.look()
                time.sleep(_LOOK)
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            say("\nStopping.")
        finally:
            # Servers first, while there is still something behind them.
            for group in (servers, [worker, *tailers]):
                for part in group:
                    part.tell()
                for part in group:
                    part.wait()


def _server(port: int) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    frames = ["--ws", "realtime.server:FanoutProtocol", "--ws-per-message-deflate", "false"]
    return ["-m", "uvicorn", *options, *frames, "--log-level", "warning", APPLICATION]


def _welcome(ports: tuple[int, int], logins: str) -> str:
    one, two = (f"http://localhost:{port}/" for port in ports)
    return f"""
  The demo runs at  {one}  and at  {two}
  One PostgreSQL, one Redis, two servers, two tailers, one worker.

{logins}

  What each process says is in var/stack/*.log. Kill one and watch.
  Ctrl-C stops everything.
"""


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    # SIGINT too: a shell that starts this in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    except Failure as failure:
        sys.stderr.write(f"stack: {failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
