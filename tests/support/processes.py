"""Processes of this project, on the database of the test."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from django.db import connection

from tests.support.python import Python
from tests.support.tokens import SECRET_KEY

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Program:
    """A running `manage.py` command and what it has said."""

    process: Python
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()


@contextlib.contextmanager
def managing(folder: Path, *command: str, redis: str = "", layer: str = "") -> Iterator[Program]:
    """`manage.py <command>`, killed at the end if it still runs. `layer`: core or pubsub."""
    log = folder / f"{command[0]}.log"
    with log.open("wb") as output:
        process = Python(
            ["manage.py", *command],
            cwd=ROOT,
            env={**environment(redis), "ROWCAST_LAYER": layer},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Program(process, log)
    finally:
        process.kill()
        process.wait()


def environment(redis: str = "") -> dict[str, str]:
    """For a process on the database of this test, and on this Redis."""
    variables = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings_server",
        "DJANGO_SECRET_KEY": SECRET_KEY,
        "REDIS_URL": redis,
        "PYTHONUNBUFFERED": "1",
    }
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        return {**variables, "DATABASE_URL": "", "SQLITE_PATH": str(given["NAME"])}
    user, password, name = (quote(str(given[key]), "") for key in ("USER", "PASSWORD", "NAME"))
    host, port = str(given["HOST"]), str(given["PORT"])
    # A directory is a socket's, which has no place in front of the path.
    place = "" if host.startswith("/") else f"{host}:{port}" if port else host
    rest = f"?host={quote(host, '')}&port={port}" if host.startswith("/") else ""
    return {**variables, "DATABASE_URL": f"postgresql://{user}:{password}@{place}/{name}{rest}"}
