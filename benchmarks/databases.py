"""A database for a benchmark, of either vendor, while a block runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import postgres

VENDORS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@contextmanager
def url_of(vendor: str, folder: str) -> Iterator[None]:
    """Start a PostgreSQL server that ends with the block and name it in DATABASE_URL; for SQLite
    unset the variable."""
    os.environ.pop("DATABASE_URL", None)
    if vendor == "sqlite":
        yield
        return
    server = postgres.Postgres(Path(folder))
    server.start()
    os.environ["DATABASE_URL"] = server.url
    try:
        yield
    finally:
        server.stop()
