"""The base of deployments under test: migrated databases to copy, and a Redis.

A PostgreSQL server for the modules of a worker, or of a module's own whose tests take it away. Each
test gets a database made from the migrated one.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.support.server import environment, migrate
from tests.support import postgres
from tests.support.at_hand import without
from tests.support.postgres import Postgres

_TEMPLATE = "rowcast_template"
_numbers = itertools.count(1)


class BaseDatabase:
    """A PostgreSQL server with a migrated, empty database to copy."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres

    def prepare(self) -> None:
        self._sql(f"CREATE DATABASE {_TEMPLATE}")
        unused = Path("unused.sqlite3")
        migrate({**environment(unused), "DATABASE_URL": self.postgres.url_of(_TEMPLATE)})

    def database(self) -> str:
        """The URL of a new database, migrated and empty."""
        name = f"rowcast_{next(_numbers)}"
        self._sql(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        return self.postgres.url_of(name)

    def _sql(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def base_database() -> Iterator[BaseDatabase]:
    """Skips the test where there is no PostgreSQL; fails it in CI."""
    if reason := postgres.missing():
        without(reason)
    with postgres.running() as server:
        made = BaseDatabase(server)
        made.prepare()
        yield made
