"""The functions that SQLite's dialect calls, made known to each new connection.

They read a value as the stream does: see dialects/sqlite_values.py.
"""

from __future__ import annotations

from typing import Any

from django.db import NotSupportedError

from auth_rls.predicates.kinds import Kind, from_row
from auth_rls.sql.dialects.registry import dialect_of
from auth_rls.sql.dialects.sqlite import Sqlite
from auth_rls.sql.dialects.sqlite_values import READ_ADDRESS, READ_TEXT


def install(*, connection: Any, **_: Any) -> None:
    """Make the functions known to a connection of SQLite; for `connection_created`."""
    try:
        sqlite = isinstance(dialect_of(connection), Sqlite)
    except NotSupportedError:
        return
    if sqlite:
        create = connection.connection.create_function
        create(READ_TEXT, 2, read_text, deterministic=True)
        create(READ_ADDRESS, 1, _address, deterministic=True)


def read_text(kind: str, digits: str) -> str | None:
    """The text that a value of this type and these bytes is to the stream; None for none."""
    if kind == "blob":
        return digits.lower()
    text = bytes.fromhex(digits).decode(errors="replace")
    return text if kind == "text" and "\0" not in text else None


def _address(raw: bytes) -> object:
    try:
        return from_row(Kind.INET, raw.decode(errors="replace"))
    except ValueError:
        return None
