"""The log on SQLite. Writers are serialised here, so ids are commit order."""

from __future__ import annotations

import logging
import re
import sqlite3
from contextlib import AbstractContextManager, nullcontext

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Warning
from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from auth_rls.sql.columns import columns_of
from realtime.wal.entry import Relation
from realtime.wal.partitions import Partitions
from realtime.wal.sql_functions import NoSqlFunctions, SqlFunctions
from realtime.wal.sqlite import evidence, triggers
from realtime.wal.sqlite.actor import SqliteActorWrapper
from realtime.wal.sqlite.catalog import SqliteCatalog
from realtime.wal.sqlite.change_detector import SqliteChangeDetector
from realtime.wal.sqlite.numbering import SqliteNumbering
from realtime.wal.vendor import Vendor

_RECURSIVE = re.compile(r"recursive_triggers\s*=\s*'?(on|1|true|yes)\b", re.IGNORECASE)
_TRIGGER_TEXTS = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND sql IS NOT NULL"
# Version 4, variant 1, as Django stores it here: 32 digits.
_RANDOM_UUID = (
    "lower(hex(randomblob(6)) || '4' || substr(hex(randomblob(2)), 2)"
    " || substr('89ab', 1 + (random() & 3), 1)"
    " || substr(hex(randomblob(2)), 2) || hex(randomblob(6)))"
)
# The stamp of a head row for which the evidence beside the file counts.
_STAMP = "file"
_UNWRITABLE: set[str] = set()

logger = logging.getLogger(__name__)


class Sqlite:
    """See `realtime.wal.vendor.Vendor`."""

    # Remaking a table loses its triggers, dropping a column fails while a trigger names it, and the
    # log's own table cannot be remade while a trigger writes to it.
    triggers_survive_migrations = False
    renews_idle_leases = False
    now_us = triggers.NOW_US
    begin_snapshot = "BEGIN DEFERRED"
    random_uuid = _RANDOM_UUID
    index_log: tuple[str, ...] = ()
    # What is not an image is about the same for all.
    entry_bytes = (
        "120 + COALESCE(LENGTH(CAST(w.old AS BLOB)), 0) + COALESCE(LENGTH(CAST(w.new AS BLOB)), 0)"
    )
    bind_numbers: tuple[str, ...] = (
        "CREATE TRIGGER IF NOT EXISTS realtime_wal_deleted AFTER DELETE ON realtime_wal"
        " BEGIN DELETE FROM realtime_wal_number WHERE entry_id = OLD.id; END",
    )
    unbind_numbers: tuple[str, ...] = ("DROP TRIGGER IF EXISTS realtime_wal_deleted",)

    def catalog(self, connection: BaseDatabaseWrapper) -> SqliteCatalog:
        return SqliteCatalog(connection)

    def actor_wrapper(self, connection: BaseDatabaseWrapper) -> SqliteActorWrapper:
        return SqliteActorWrapper(connection)

    def sql_functions(
        self, connection: BaseDatabaseWrapper, table: str, *, longest_topic: int, longest_event: int
    ) -> SqlFunctions:
        raise NoSqlFunctions(
            f"Such functions are PostgreSQL's; the database {connection.alias!r} is"
            f" {connection.display_name}. Insert rows into {table} instead."
        )

    def check(self, alias: str) -> list[CheckMessage]:
        """W002 INSERT OR REPLACE escapes capture; W003 datetimes that are not stored in UTC."""
        found: list[CheckMessage] = []
        options = connections[alias].settings_dict.get("OPTIONS", {})
        if not _RECURSIVE.search(options.get("init_command") or ""):
            found.append(
                Warning(
                    "Without recursive_triggers SQLite deletes rows on INSERT OR REPLACE that no "
                    "trigger sees, so their deletion is not captured.",
                    hint=(
                        f"Set DATABASES[{alias!r}]['OPTIONS']['init_command'] = "
                        "'PRAGMA recursive_triggers=ON;' (together with what it has now)."
                    ),
                    id="realtime.W002",
                )
            )
        if django_settings.USE_TZ and connections[alias].timezone_name != "UTC":
            found.append(
                Warning(
                    f"DATABASES[{alias!r}] stores datetimes in {connections[alias].timezone_name}; "
                    "SQLite keeps no zone with them, and they are captured as UTC.",
                    hint=f"Remove TIME_ZONE from DATABASES[{alias!r}].",
                    id="realtime.W003",
                )
            )
        return found

    def limit_lock_wait(self, connection: BaseDatabaseWrapper, milliseconds: int) -> None:
        connection.connection.execute(f"PRAGMA busy_timeout = {milliseconds:d}")

    def cancel(self, connection: BaseDatabaseWrapper) -> None:
        if connection.connection is not None:
            connection.connection.interrupt()

    def lost_to_others(self, error: BaseException) -> bool:
        cause = error.__cause__ if error.__cause__ is not None else error
        # The low byte is the code, the others say more.
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    head_writer = "''"

    def stamp(self, connection: BaseDatabaseWrapper) -> str:
        path = evidence.path_of(connection)
        return "''" if path is None or path in _UNWRITABLE else f"'{_STAMP}'"

    def is_own(
        self, connection: BaseDatabaseWrapper, epoch: str, seq: int, stamp: str, writer: str
    ) -> bool:
        path = evidence.path_of(connection)
        if path is None or path in _UNWRITABLE:
            return True
        known = evidence.read(path)
        if not stamp:
            # The row was written before there was any evidence.
            return known is None or known.epoch != epoch or known.seq <= seq
        return (
            known is not None
            and (known.epoch, known.file) == (epoch, evidence.identity(path))
            and known.seq <= seq
        )

    def remember(self, connection: BaseDatabaseWrapper, epoch: str, seq: int) -> None:
        path = evidence.path_of(connection)
        if path is not None and not evidence.write(path, epoch, seq) and path not in _UNWRITABLE:
            _UNWRITABLE.add(path)
            logger.warning(
                "%s cannot be written: a restored backup will not be noticed",
                path + evidence.SUFFIX,
                extra={"action": "evidence_unwritable"},
            )

    def change_detector(self, connection: BaseDatabaseWrapper) -> SqliteChangeDetector:
        return SqliteChangeDetector(connection)

    def numbering(self) -> SqliteNumbering:
        return SqliteNumbering()

    def as_bytes(self, text: str) -> str:
        return f"CAST({text} AS BLOB)"

    def row_image(
        self, connection: BaseDatabaseWrapper, model: type[models.Model], relation: Relation
    ) -> str:
        row = connection.ops.quote_name(model._meta.db_table)
        scales = {c.name: c.scale for c in columns_of(model).values() if c.scale is not None}
        return self.as_bytes(triggers.image(relation, row, scales))

    def prepare_images(self, connection: BaseDatabaseWrapper) -> None:
        """Does nothing: no setting changes how SQLite prints values."""

    def printing(self, connection: BaseDatabaseWrapper) -> AbstractContextManager[object]:
        # No transaction is begun, because it might have to wait for writers.
        return nullcontext()

    def lock_pruning(self, connection: BaseDatabaseWrapper) -> bool:
        # Only one transaction writes at a time.
        return True

    def newest_writer(self, connection: BaseDatabaseWrapper) -> int:
        return 0

    def ended_before(self, connection: BaseDatabaseWrapper, writer: int) -> bool:
        return True

    def trigger_texts(self, connection: BaseDatabaseWrapper) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(_TRIGGER_TEXTS)
            return [text for (text,) in cursor.fetchall()]

    def ids_behind(self, connection: BaseDatabaseWrapper) -> bool:
        # AUTOINCREMENT takes the ids in the table into account.
        return False

    def pass_taken_ids(self, connection: BaseDatabaseWrapper) -> None:
        """None can be taken."""

    def partitions(self, connection: BaseDatabaseWrapper) -> Partitions | None:
        return None

    def partition_log(self, connection: BaseDatabaseWrapper) -> None:
        """Does nothing: there are no partitions."""

    def unpartition_log(self, connection: BaseDatabaseWrapper) -> None:
        """Does nothing."""

    def log_bytes(self, connection: BaseDatabaseWrapper) -> int | None:
        return None

    def forgets_in_a_crash(self, table: str) -> tuple[str, ...]:
        return ()

    def outlives_a_crash(self, table: str) -> tuple[str, ...]:
        return ()


vendor: Vendor = Sqlite()
