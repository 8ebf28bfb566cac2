"""A real server process on a database file of its own, for tests to start, kill and read.

Owns the processes it starts and nothing else. `orm_process.py` changes the database;
`raw_client.py` and `node_client.py` speak to the server.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.python import Python, run
from tests.support.tokens import SECRET_KEY

ROOT = Path(__file__).resolve().parents[3]
ANON_KEY = "sb_publishable_test"
SERVICE_KEY = "sb_secret_test"

# How long anything may take that has to happen; generous, for a busy machine.
PATIENCE = 60.0

COMMANDS = {
    "daphne": ["-m", "daphne", "-b", "127.0.0.1", "-p", "{port}"],
    # Its access log writes query strings, and with them tokens: see SECURITY.md.
    "uvicorn": [
        "-m",
        "uvicorn",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "--log-level",
        "warning",
    ],
}
# The same server with our WebSocket protocol.
COMMANDS["fanout"] = [*COMMANDS["uvicorn"], "--ws", "realtime.server:FanoutProtocol"]
APPLICATION = "realtime_project.asgi:application"


def environment(database: Path, realtime: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The environment of any process that works on this database file."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings_server",
        "DJANGO_SECRET_KEY": SECRET_KEY,
        "SQLITE_PATH": str(database),
        "ROWCAST_REALTIME": json.dumps(dict(realtime or {})),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "default",
    }


def make_database(path: Path) -> Path:
    """A migrated, empty database in one file that can be copied."""
    migrate(environment(path))
    return path


def migrate(env: Mapping[str, str]) -> None:
    """Migrates the database that this environment names. Raises RuntimeError with what was said."""
    command = ["manage.py", "migrate", "--run-syncdb", "--verbosity", "0"]
    done = run(command, cwd=ROOT, env=env, timeout=2 * PATIENCE)
    if done.returncode:
        raise RuntimeError(f"migrate failed:\n{done.stdout}{done.stderr}")


def copy_database(template: Path, path: Path) -> Path:
    """Copies a database that no process has open, with its journal."""
    for suffix in ("", "-wal"):
        source = Path(f"{template}{suffix}")
        if source.exists():
            shutil.copy(source, f"{path}{suffix}")
    return path


class Server:
    """One server process at a time, always on the same port and database."""

    application = APPLICATION
    folder = ROOT

    def __init__(
        self, database: Path, kind: str = "daphne", realtime: Mapping[str, Any] | None = None
    ) -> None:
        self.database = database
        self.kind = kind
        self.port = free_port()
        self.log_path = database.with_suffix(".log")
        self._environment = environment(database, realtime)
        self._process: Python | None = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def address(self, path: str = "/realtime/v1/websocket", query: str = "") -> str:
        return f"ws://127.0.0.1:{self.port}{path}{'?' + query if query else ''}"

    @property
    def log(self) -> str:
        """What every process of this server has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        """Returns when the server answers. Raises RuntimeError, with its log, when it does not."""
        command = [part.format(port=self.port) for part in COMMANDS[self.kind]]
        with self.log_path.open("ab") as log:
            self._process = Python(
                [*command, self.application],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the {self.kind} server did not start:\n{self.log}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/an-address-that-is-not-there")
            return connection.getresponse().status == 404
        except OSError:
            return False
        finally:
            connection.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The running process. Raises RuntimeError when there is none."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def stop(self) -> int:
        """Asks the process to end, as a supervisor would. Returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Takes the process away in the middle of whatever it does."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)
            raise RuntimeError(f"the {self.kind} server did not end:\n{self.log}") from None


@contextlib.contextmanager
def running(
    database: Path, kind: str = "daphne", realtime: Mapping[str, Any] | None = None
) -> Iterator[Server]:
    """A started server, gone at the end whatever happened."""
    server = Server(database, kind, realtime)
    server.start()
    try:
        yield server
    finally:
        server.kill()
