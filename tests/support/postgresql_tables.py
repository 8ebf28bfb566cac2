"""Tables of PostgreSQL that a test makes and publishes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection, models
from django.test.utils import isolate_apps

from realtime import publish
from realtime.wal import triggers as install
from realtime.wal.postgresql import triggers as postgresql
from tests.support.captured_models import (
    forget,
    withdraw,
)


def sql(statement: str, *params: object) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def another() -> Iterator[psycopg.Connection[Any]]:
    """A connection of another program, in autocommit."""
    parameters = connection.get_connection_params()
    known = {name: parameters[name] for name in ("dbname", "user", "host", "port")}
    with psycopg.connect(**known, autocommit=True) as link:
        yield link


@contextmanager
def thing_table(definition: str, **options: Any) -> Iterator[type[models.Model]]:
    """A table `zoo_thing` made by SQL, behind a published model of id, name and size."""
    with isolate_apps("tests.zoo"):

        @publish
        class Thing(models.Model):
            name = models.TextField(null=True)
            size = models.IntegerField(null=True)

            class Meta:
                app_label = "zoo"
                managed = False
                db_table = options.get("db_table", "zoo_thing")

        try:
            sql(definition)
            install.reconcile()
            forget()
            yield Thing
        finally:
            withdraw(Thing)
            sql(options.get("drop", "DROP TABLE zoo_thing CASCADE"))
            install.reconcile()


PLAIN = "CREATE TABLE zoo_thing (id bigserial PRIMARY KEY, name text, size int)"


def levels(table: str = "zoo_thing") -> dict[str, str]:
    rows = sql(
        "SELECT tgname, CASE WHEN tgtype & 1 = 1 THEN 'row' ELSE 'statement' END FROM pg_trigger"
        " WHERE tgrelid = %s::regclass AND starts_with(tgname, %s)",
        table,
        postgresql.PREFIX,
    )
    return {name.removeprefix(postgresql.PREFIX): level for name, level in rows}
