"""Texts about a database's error for people who are not its operators.

A database's own message names its host, user, tables and columns, quotes SQL, and may quote a row.
It goes to the log for the operator; clients and pages get one of the texts here.
"""

from __future__ import annotations

from django.db.utils import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

_MISFIT = "a table or column is not as the model says"
# By class; a subclass comes before its base.
_TEXTS: tuple[tuple[type[Exception], str], ...] = (
    (DataError, "the database refuses a value"),
    (IntegrityError, "the database refuses the row"),
    (ProgrammingError, _MISFIT),
    (NotSupportedError, "the database does not support what is asked"),
    (OperationalError, "the database does not answer"),
    (InterfaceError, "the database does not answer"),
    (DatabaseError, "the database reports an error"),
)
# SQLite's one code for statements that do not fit the schema; others are locks, disks and files.
_SQLITE_GENERIC = "SQLITE_ERROR"
# invalid_regular_expression: the message only quotes the client's own pattern.
_PATTERN = "2201B"


def public_reason(error: BaseException) -> str:
    """Why the database refused, without details of the database. For an error that is not a
    database's, such as a value that no database stores, the first line of its own text."""
    if getattr(error.__cause__, "sqlstate", None) == _PATTERN:
        return first_line(error)
    if getattr(error.__cause__, "sqlite_errorname", None) == _SQLITE_GENERIC:
        return _MISFIT
    for kind, text in _TEXTS:
        if isinstance(error, kind):
            return text
    if isinstance(error, OSError | LookupError):
        return "the database does not answer"
    return first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of the error's own text, for operators."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
