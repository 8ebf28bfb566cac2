"""Checks of the built files for scripts/package: they contain what is needed, and nothing else; and
the wheel works in a bare project, of this environment and of each interpreter that is named, on
SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

import psycopg

APPS = ("auth_rls", "realtime")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import postgres  # noqa: E402  (found by the line above)

# A published table, and a row of it that its trigger captures and the tailer numbers.
CODE = """
import json, sys
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="a-key-of-a-bare-project-that-is-long-enough",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "auth_rls", "realtime"],
    DATABASES={"default": json.loads(sys.argv[1])},
)
django.setup()
import realtime
from django.contrib.auth.models import Group
from django.core.management import call_command
realtime.publish(Group)
call_command("migrate", verbosity=0)
Group.objects.create(name="editors")
call_command("tail_wal", "--once", verbosity=0)
from realtime.models import WalEntry
(entry,) = WalEntry.objects.filter(table_name="auth_group")
assert entry.seq == realtime.head(), f"captured as {entry}, and the head is {realtime.head()}"
print(realtime.__file__)
"""
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "bare.sqlite3"}


def needed() -> set[str]:
    """The files of the repository that an installation needs."""
    listed = subprocess.run(
        ["git", "ls-files", *APPS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


def held(path: Path) -> set[str]:
    if path.suffix == ".whl":
        return set(zipfile.ZipFile(path).namelist())
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def use(python: str, place: str, database: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the bare project on this database, in a folder from which `python` finds the wheel."""
    command = [python, "-W", "error::DeprecationWarning:realtime", "-c", CODE, json.dumps(database)]
    return subprocess.run(command, cwd=place, capture_output=True, text=True)


def installed(python: str, wheel: Path, databases: list[dict[str, str]]) -> None:
    """Install the wheel for `python`, with what it depends on, and use it in a bare project on each
    of the databases."""
    with tempfile.TemporaryDirectory() as place:
        package = f"{wheel.resolve()}[postgres]" if len(databases) > 1 else str(wheel.resolve())
        steps = (
            [python, "-m", "venv", "venv"],
            ["venv/bin/pip", "install", "-q", "--disable-pip-version-check", package],
        )
        for step in steps:
            done = subprocess.run(step, cwd=place, capture_output=True, text=True)
            if done.returncode:
                said = f"{done.stdout}{done.stderr}"
                sys.exit(f"{wheel.name} cannot be installed for {python}: {step}\n{said}")
        for database in databases:
            done = use("venv/bin/python", place, database)
            if done.returncode or place not in done.stdout:
                said = f"{done.stdout}{done.stderr}"
                sys.exit(f"{wheel.name} does not work with {python} on {database}:\n{said}")


class Databases:
    """A database for each interpreter: SQLite, and PostgreSQL where it is at hand."""

    def __init__(self, stack: ExitStack) -> None:
        self._server: postgres.Postgres | None = None
        if reason := postgres.missing():
            print(f">>> {reason}; the wheel is NOT TRIED on PostgreSQL", file=sys.stderr)
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._server = postgres.Postgres(folder)
        self._server.start()
        stack.callback(self._server.stop)

    def of(self, name: str) -> list[dict[str, str]]:
        """Empty ones; the name is for the one on the server."""
        if self._server is None:
            return [SQLITE]
        with psycopg.connect(self._server.url, autocommit=True) as link:
            link.execute(f'CREATE DATABASE "{name}"')
        place = {"HOST": "127.0.0.1", "PORT": str(self._server.port), "USER": "postgres"}
        return [SQLITE, {"ENGINE": "django.db.backends.postgresql", "NAME": name, **place}]


def main(folder: Path, pythons: list[str]) -> None:
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    for path in (wheel, sdist):
        if missing := needed() - held(path):
            sys.exit(f"{path.name} lacks {', '.join(sorted(missing))}")
    known = needed()
    strange = {n for n in held(wheel) if n.startswith(APPS) and not n.endswith("/")} - known
    if strange:
        sys.exit(f"{wheel.name} holds what is not in the repository: {', '.join(sorted(strange))}")
    others = {n.split("/")[0] for n in held(wheel)} - set(APPS)
    if any(not name.endswith(".dist-info") for name in others):
        sys.exit(f"{wheel.name} holds {', '.join(sorted(others))}")
    with tempfile.TemporaryDirectory() as place:
        zipfile.ZipFile(wheel).extractall(place)
        done = use(sys.executable, place, SQLITE)
        if done.returncode or place not in done.stdout:
            sys.exit(f"a bare project cannot use {wheel.name}:\n{done.stdout}{done.stderr}")
    with ExitStack() as stack:
        databases = Databases(stack)
        for number, python in enumerate(pythons):
            installed(python, wheel, databases.of(f"python_{number}"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
