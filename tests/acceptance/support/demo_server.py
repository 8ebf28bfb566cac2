"""The demo on a server of its own, and a browser to look at it."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from tests.acceptance.support.devtools import wait_for
from tests.acceptance.support.server import PATIENCE, ROOT
from tests.support.ports import free_port
from tests.support.python import Python, run
from tests.support.tokens import SECRET_KEY


class DemoServer:
    """The demo on a database and a port of its own; it can be stopped and started again."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings_demo",
            "DJANGO_DEBUG": "1",
            "SQLITE_PATH": str(database),
            "ROWCAST_JWT_KEY": SECRET_KEY,
        }
        self._process: Python | None = None
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self.manage("migrate", "--verbosity", "0")
        self._loader = Python(
            ["-m", "tests.acceptance.support.demo_loader"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.load()

    def manage(self, *arguments: str) -> str:
        done = run(["manage.py", *arguments], cwd=ROOT, env=self._environment, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def load(self) -> None:
        """Load the demo afresh, as `load_demo --reset` does."""
        assert self._loader.stdin is not None and self._loader.stdout is not None
        self._loader.stdin.write("\n")
        self._loader.stdin.flush()
        assert self._loader.stdout.readline() == "loaded\n", "the demo was not loaded"

    def sql(self, statement: str, *values: object) -> None:
        """Writes as any other program would: past Django, through a connection of its own."""
        with closing(sqlite3.connect(self._database, timeout=20)) as connection, connection:
            connection.execute(statement, values)

    def address(self, path: str = "/realtime/v1/websocket", query: str = "") -> str:
        return f"ws://localhost:{self.port}{path}{'?' + query if query else ''}"

    def ids(self, statement: str, *values: object) -> list[int]:
        """The first column of a query."""
        with closing(sqlite3.connect(self._database, timeout=20)) as connection:
            return [row[0] for row in connection.execute(statement, values)]

    def start(self) -> None:
        self._process = Python(
            [
                *("-m", "daphne", "--verbosity", "0"),
                *("--bind", "127.0.0.1", "--port", str(self.port)),
                "realtime_project.asgi:application",
            ],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._answers, "the server")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the server ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Nothing of it is left."""
        try:
            self.stop()
        finally:
            self._loader.end(PATIENCE)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.end(PATIENCE)
