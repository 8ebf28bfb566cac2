"""The ORM in the server's database, used from a second process as any view would use it.

`OrmProcess` is the test's side. `python -m tests.acceptance.support.orm_process` is the process: it
answers one JSON line with another until its input ends. What it can do are the functions of
`orm_commands.py`, called as methods: `orm.note(owner=1, title="x")`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.support.server import PATIENCE, ROOT, environment
from tests.support.python import Python


class OrmProcess:
    """A process that works in one database file. Each method runs the function of that name there;
    an error there is raised as RuntimeError with the traceback."""

    def __init__(self, database: Path) -> None:
        self._start(environment(database))

    def _start(self, env: Mapping[str, str]) -> None:
        self._process = Python(
            ["-m", "tests.acceptance.support.orm_process"],
            cwd=ROOT,
            env={**env, "ROWCAST_SERVES": "nothing"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __getattr__(self, function: str) -> Callable[..., Any]:
        def do(*args: Any, **options: Any) -> Any:
            self.begin(function, *args, **options)
            return self.finish()

        return do

    def begin(self, function: str, *args: Any, **options: Any) -> None:
        """Starts a function and does not wait for it."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([function, args, options]) + "\n")
        self._process.stdin.flush()

    def finish(self) -> Any:
        """Waits for the function that was begun, and returns its result."""
        assert self._process.stdout
        answer = json.loads(self._process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def kill(self) -> None:
        """Kills the process, in the middle of a function if one runs."""
        self._process.kill()
        self._process.end(PATIENCE)

    def close(self) -> None:
        self._process.end(PATIENCE)


def _serve() -> None:
    import traceback

    import django

    django.setup()
    from tests.acceptance.support import orm_commands

    for line in sys.stdin:
        name, args, options = json.loads(line)
        try:
            answer = {"value": getattr(orm_commands, name)(*args, **options)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer, default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
