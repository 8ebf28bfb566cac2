"""Host projects: made from `base` and a folder of `projects`, on the installed wheel."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.server import PATIENCE, Server
from tests.support.postgres import Postgres
from tests.support.python import Python
from tests.support.tokens import SECRET_KEY, token

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMES = sorted(folder.name for folder in (HERE / "projects").iterdir() if folder.is_dir())
PARTS = ("auth_rls", "realtime", "pyproject.toml", "README.md", "LICENSE")


def build_wheel(work: Path, folder: Path) -> None:
    """Build the wheel from a copy of the sources and unpack it, which is what installing does."""
    source = work / "source"
    source.mkdir(parents=True)
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work)]
    _run([*command, str(source)], cwd=source, env=dict(os.environ))
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    compileall.compile_dir(folder, quiet=2)


def sqlite_databases(folder: Path) -> dict[str, Any]:
    return {
        name: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / f"{name}.sqlite3")}
        for name in ("default", "second")
    }


def postgresql_databases(server: Postgres, prefix: str) -> dict[str, Any]:
    names = {name: f"{prefix}_{name}" for name in ("default", "second")}
    with psycopg.connect(server.url, autocommit=True) as link:
        for database in names.values():
            link.execute(f'CREATE DATABASE "{database}"')
    place = {"USER": "postgres", "HOST": "127.0.0.1", "PORT": str(server.port)}
    engine = "django.db.backends.postgresql"
    return {alias: {"ENGINE": engine, "NAME": name, **place} for alias, name in names.items()}


def _run(command: list[str], *, cwd: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


class HostServer(Server):
    """The ASGI server of a host."""

    application = "asgi:application"

    def __init__(self, folder: Path, kind: str, environment: dict[str, str]) -> None:
        super().__init__(folder / "server", kind)
        self.folder = folder
        self._environment = environment


class Host:
    """One host project at work."""

    def __init__(
        self, name: str, folder: Path, installed: Path, databases: dict[str, Any], kind: str
    ) -> None:
        self.name = name
        self.folder = folder
        shutil.copytree(HERE / "base", folder, dirs_exist_ok=True)
        shutil.copytree(HERE / "projects" / name, folder, dirs_exist_ok=True)
        self.databases = databases
        self.environment = {
            **{key: value for key, value in os.environ.items() if key != "DATABASE_URL"},
            "DJANGO_SETTINGS_MODULE": "settings",
            "HOST_SECRET_KEY": SECRET_KEY,
            "HOST_DATABASES": json.dumps(databases),
            "PYTHONPATH": os.pathsep.join([str(folder), str(installed)]),
            "PYTHONWARNINGS": "default",
        }
        self.server = HostServer(folder, kind, self.environment)
        self._commands: Python | None = None

    def prepare(self) -> None:
        """Make its tables, with what it has before Django, and ask the checks."""
        script = self.folder / "before_migrations.sql"
        if script.exists():
            self._execute(script.read_text())
        self.do("prepare")

    def _execute(self, sql: str) -> None:
        place = self.databases["default"]
        if place["ENGINE"].endswith("sqlite3"):
            import sqlite3

            link = sqlite3.connect(place["NAME"])
            link.executescript(sql.replace("{serial}", "integer PRIMARY KEY AUTOINCREMENT"))
            link.close()
            return
        url = f"postgresql://postgres@127.0.0.1:{place['PORT']}/{place['NAME']}"
        with psycopg.connect(url, autocommit=True) as link:
            link.execute(sql.replace("{serial}", "serial PRIMARY KEY"))  # type: ignore[arg-type]

    def do(self, name: str, *arguments: Any) -> Any:
        """Call a function of `commands.Host` in a process of the host."""
        if self._commands is None:
            self._commands = Python(
                ["commands.py"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        process = self._commands
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([name, *arguments]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"the commands of {self.name} ended with {process.wait(PATIENCE)}"
        answer = json.loads(line)
        assert "failure" not in answer, answer["failure"]
        return answer["answer"]

    async def connect(self, sub: str | None = None) -> RawClient:
        """A client with a token of this user, or without one."""
        return await RawClient.open(self.server, key=None if sub is None else token(sub))

    def close(self) -> None:
        """Nothing of it is left, whatever fails. Raises AssertionError where its commands do not
        end well."""
        commands, self._commands = self._commands, None
        try:
            self.server.kill()
        finally:
            if commands is not None:
                self._end(commands)

    def _end(self, commands: Python) -> None:
        try:
            code = commands.end(2 * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the commands of {self.name} did not end") from None
        finally:
            # They lead a group, with all that they start.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(commands.pid, signal.SIGKILL)
        assert code == 0, f"the commands of {self.name} ended with {code}"
