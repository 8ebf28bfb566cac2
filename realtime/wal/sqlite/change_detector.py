"""Change detection on SQLite: whether anything can have been committed since the last look.

`PRAGMA data_version` changes when another connection has committed. A database file that is gone or
was replaced is noticed too.
"""

from __future__ import annotations

import os
import time

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import OperationalError

from realtime.wal.sqlite import evidence

_FILE_LOOK_SECONDS = 1.0


class SqliteChangeDetector:
    """Whether the database file changed, and whether it is still the same file."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._path = evidence.path_of(connection)
        self._version: int | None = None
        self._file: tuple[int, int] | None = None
        self._looked = 0.0

    def changed(self) -> bool:
        """Raises OperationalError when the database file is gone."""
        self._check_file()
        self._connection.ensure_connection()
        # The raw connection: Django's cursor wrapper costs several times the statement itself.
        with self._connection.wrap_database_errors:
            row = self._connection.connection.execute("PRAGMA data_version").fetchone()
        if row[0] == self._version:
            return False
        self._version = row[0]
        return True

    def forget(self) -> None:
        """Make the next look count as a change."""
        self._version = None

    def _check_file(self) -> None:
        # After a deletion or replacement this connection would read the old file for ever, and
        # opening a missing file would create an empty database.
        if self._path is None:
            return
        now = time.monotonic()
        if self._file is not None and now - self._looked < _FILE_LOOK_SECONDS:
            return
        self._looked = now
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            self._file = None
            self._connection.close()
            raise OperationalError(f"database file {self._path} is missing") from None
        file = (status.st_dev, status.st_ino)
        if self._file not in (None, file):
            self._connection.close()
            self._version = None
        self._file = file
