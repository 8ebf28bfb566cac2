"""The dialect of a connection: the only module of this app that checks for a database's vendor.

A third vendor is a module with a subclass of `Dialect`, and an entry here.
"""

from __future__ import annotations

from django.db import NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper

from auth_rls.sql.dialects.base import Dialect
from auth_rls.sql.dialects.postgresql import Postgresql
from auth_rls.sql.dialects.sqlite import Sqlite

DIALECTS: dict[str, Dialect] = {"postgresql": Postgresql(), "sqlite": Sqlite()}


def dialect_of(connection: BaseDatabaseWrapper) -> Dialect:
    """How this connection's database writes comparisons.

    Raises NotSupportedError for a database of an unknown vendor.
    """
    try:
        return DIALECTS[connection.vendor]
    except KeyError:
        raise NotSupportedError(
            f"row-level security compiles for SQLite and PostgreSQL, not for {connection.vendor}"
        ) from None
