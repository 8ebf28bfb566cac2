"""A database for a benchmark, of either vendor, and a Redis, while a block runs."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command

from tests.support import postgres
from tests.support.redis import Redis

VENDORS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@contextmanager
def url_of(vendor: str, folder: str, *, durable: bool = False) -> Iterator[None]:
    """Start a PostgreSQL server that ends with the block and name it in DATABASE_URL; for SQLite
    unset the variable. `durable`: its commits wait for the disk."""
    os.environ.pop("DATABASE_URL", None)
    if vendor == "sqlite":
        yield
        return
    server = postgres.Postgres(Path(folder), durable=durable)
    server.start()
    os.environ["DATABASE_URL"] = server.url
    try:
        yield
    finally:
        server.stop()


@contextmanager
def django_on_sqlite() -> Iterator[None]:
    """Set up Django with a SQLite database of its own, which has all tables and ends with the
    block."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "realtime_project.settings")
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        os.environ.pop("DATABASE_URL", None)
        os.environ["SQLITE_PATH"] = str(Path(folder) / "bench.sqlite3")
        django.setup()
        call_command("migrate", verbosity=0, skip_checks=True)
        yield


@contextmanager
def layer_on_redis(folder: Path) -> Iterator[None]:
    """Start a Redis that ends with the block and name it in REDIS_URL, so that servers use it for
    their channel layer."""
    redis = Redis(folder)
    redis.start()
    os.environ["REDIS_URL"] = redis.url
    try:
        yield
    finally:
        del os.environ["REDIS_URL"]
        redis.kill()


def connected(path: str | Path) -> tuple[Any, str]:
    """A connection to the database of DATABASE_URL, or to this SQLite file where the variable is
    not set, and the placeholder of its parameters. Each statement is committed at once; it may be
    used from any thread, by one at a time."""
    if url := os.environ.get("DATABASE_URL"):
        import psycopg

        return psycopg.connect(url, autocommit=True), "%s"
    return sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False), "?"
