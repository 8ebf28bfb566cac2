"""The log on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

from django.core.checks import CheckMessage
from django.db import DatabaseError, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.entry import Relation
from realtime.wal.partitions import Partitions
from realtime.wal.postgresql import numbers, partitioning, partitions, triggers
from realtime.wal.postgresql.actor import PostgresqlActorWrapper
from realtime.wal.postgresql.catalog import PostgresqlCatalog
from realtime.wal.postgresql.change_detector import AlwaysChanged
from realtime.wal.postgresql.numbering import PostgresqlNumbering
from realtime.wal.postgresql.sql_functions import PostgresqlSqlFunctions
from realtime.wal.postgresql.values import TYPE_NAME
from realtime.wal.vendor import Vendor

_TYPES = f"""
SELECT a.attname, {TYPE_NAME} FROM pg_attribute AS a
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""
_TRIGGER_TEXTS = """
SELECT pg_get_triggerdef(t.oid) || p.prosrc FROM pg_trigger AS t
JOIN pg_proc AS p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal
"""
# Any number, the same in every process.
PRUNING_LOCK = 0x526F7763
# serialization_failure, deadlock_detected, lock_not_available.
_CONFLICTS = frozenset({"40001", "40P01", "55P03"})
# Identifies where a head row is stored: a restored or copied row is stored elsewhere.
_LOCATION = """
SELECT 'realtime_head'::regclass::oid::text || '.' || d.oid::text
FROM pg_database AS d WHERE d.datname = current_database()
"""
# The timeline changes with a recovery to a point in time, and when a standby is promoted.
_TIMELINE = "SELECT timeline_id::text FROM pg_control_checkpoint()"
# For each connection of the driver, which ends when another server takes over.
_locations: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _location_of(connection: BaseDatabaseWrapper) -> str:
    connection.ensure_connection()
    location = _locations.get(connection.connection)
    if location is None:
        with connection.cursor() as cursor:
            cursor.execute(_LOCATION)
            (location,) = cursor.fetchone()
        inside = connection.in_atomic_block
        try:
            with (
                transaction.atomic(using=connection.alias) if inside else nullcontext(),
                connection.cursor() as cursor,
            ):
                cursor.execute(_TIMELINE)
                location += f".{cursor.fetchone()[0]}"
        except DatabaseError:
            # Not every hosted database lets its users read it, and a server may fail to.
            location += "."
        _locations[connection.connection] = location
    return location


def _same(one: str, other: str) -> bool:
    """Whether two stamps name one writer and location. A timeline that a connection could not read
    equals every timeline, so that it does not look like a restore."""
    (one, _, timeline), (other, _, other_timeline) = one.rpartition("."), other.rpartition(".")
    return one == other and (timeline == other_timeline or not (timeline and other_timeline))


# Of this log: another one may have an index of this name in a schema further down the search path.
_DROP_UNFINISHED = """
DO $$ BEGIN
    IF EXISTS (
        SELECT 1 FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
        WHERE i.indrelid = 'realtime_wal'::regclass AND c.relname = 'realtime_wal_txid'
          AND NOT i.indisvalid
    ) THEN
        DROP INDEX realtime_wal_txid;
    END IF;
END $$
"""


class Postgresql:
    """See `realtime.wal.vendor.Vendor`."""

    triggers_survive_migrations = True
    renews_idle_leases = True
    now_us = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    begin_snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    random_uuid = "gen_random_uuid()"
    # By transaction: see `visibility`. Writers go on meanwhile; what is left of an attempt that was
    # interrupted is of no use.
    index_log: tuple[str, ...] = (
        _DROP_UNFINISHED,
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS realtime_wal_txid ON realtime_wal (txid)",
        *partitions.describe("realtime_wal"),
    )
    # What is not an image is about the same for all.
    entry_bytes = "260 + COALESCE(pg_column_size(w.old), 0) + COALESCE(pg_column_size(w.new), 0)"
    bind_numbers: tuple[str, ...] = numbers.BIND
    unbind_numbers: tuple[str, ...] = numbers.UNBIND

    def catalog(self, connection: BaseDatabaseWrapper) -> PostgresqlCatalog:
        return PostgresqlCatalog(connection)

    def actor_wrapper(self, connection: BaseDatabaseWrapper) -> PostgresqlActorWrapper:
        return PostgresqlActorWrapper(connection)

    def sql_functions(
        self, connection: BaseDatabaseWrapper, table: str, *, longest_topic: int, longest_event: int
    ) -> PostgresqlSqlFunctions:
        return PostgresqlSqlFunctions(connection, table, longest_topic, longest_event)

    def check(self, alias: str) -> list[CheckMessage]:
        return []

    def limit_lock_wait(self, connection: BaseDatabaseWrapper, milliseconds: int) -> None:
        """Does nothing: the server ends a session that hangs while it locks the head row."""

    def cancel(self, connection: BaseDatabaseWrapper) -> None:
        if connection.connection is not None:
            connection.connection.cancel()

    def lost_to_others(self, error: BaseException) -> bool:
        cause = error.__cause__ if error.__cause__ is not None else error
        return getattr(cause, "sqlstate", None) in _CONFLICTS

    head_writer = "xmin::text"

    def stamp(self, connection: BaseDatabaseWrapper) -> str:
        if connection.in_atomic_block:
            # In a savepoint the row gets the savepoint's id, which SQL cannot read.
            return "''"
        location = _location_of(connection)
        return (
            f"(mod(pg_current_xact_id()::text::numeric, 4294967296)::bigint::text || ':{location}')"
        )

    def is_own(
        self, connection: BaseDatabaseWrapper, epoch: str, seq: int, stamp: str, writer: str
    ) -> bool:
        return not stamp or _same(stamp, f"{writer}:{_location_of(connection)}")

    def remember(self, connection: BaseDatabaseWrapper, epoch: str, seq: int) -> None:
        """Does nothing: the row itself shows its writer."""

    def change_detector(self, connection: BaseDatabaseWrapper) -> AlwaysChanged:
        return AlwaysChanged()

    def numbering(self) -> PostgresqlNumbering:
        return PostgresqlNumbering()

    def as_bytes(self, text: str) -> str:
        return f"CONVERT_TO({text}, 'UTF8')"

    def row_image(
        self, connection: BaseDatabaseWrapper, model: type[models.Model], relation: Relation
    ) -> str:
        row = connection.ops.quote_name(model._meta.db_table)
        with connection.cursor() as cursor:
            cursor.execute(_TYPES, [row])
            types = dict(cursor.fetchall())
        shape = triggers.TriggerFunctionSql(
            relation=relation,
            types=types,
            whole=True,
            table=row,
            wal="",
            zone=connection.timezone_name,
        )
        return self.as_bytes(shape.image(row))

    def prepare_images(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL TimeZone TO 'UTC'")
            cursor.execute("SET LOCAL extra_float_digits TO 1")

    @contextmanager
    def printing(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        # The settings end with the transaction.
        with transaction.atomic(using=connection.alias):
            self.prepare_images(connection)
            yield

    def lock_pruning(self, connection: BaseDatabaseWrapper) -> bool:
        # Two processes that delete the same rows in different orders would wait for each other.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [PRUNING_LOCK])
            return bool(cursor.fetchone()[0])

    def newest_writer(self, connection: BaseDatabaseWrapper) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()::text::bigint")
            return int(cursor.fetchone()[0])

    def ended_before(self, connection: BaseDatabaseWrapper, writer: int) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
            return int(cursor.fetchone()[0]) >= writer

    def trigger_texts(self, connection: BaseDatabaseWrapper) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(_TRIGGER_TEXTS)
            return [text for (text,) in cursor.fetchall()]

    def ids_behind(self, connection: BaseDatabaseWrapper) -> bool:
        with connection.cursor() as cursor:
            if _id_sequence(cursor) is None:
                return False
            # By this limit the statement reads no older partition.
            last = partitions.last_id(cursor)
            cursor.execute("SELECT MAX(id) FROM realtime_wal WHERE id > %s", [last])
            (most,) = cursor.fetchone()
            # It may have been drawn in between.
            return most is not None and partitions.last_id(cursor) < most

    def pass_taken_ids(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            sequence = _id_sequence(cursor)
            if sequence is not None:
                # Another process may have moved it on meanwhile, and drawn ids.
                cursor.execute(
                    "SELECT setval(%s, GREATEST(last_value, most)) FROM"
                    f" (SELECT MAX(id) AS most FROM realtime_wal) AS log, {sequence}"
                    " WHERE most > last_value - (NOT is_called)::int",
                    [sequence],
                )

    def partitions(self, connection: BaseDatabaseWrapper) -> Partitions | None:
        if not partitions.is_partitioned(connection):
            return None
        return partitions.PostgresqlPartitions(connection)

    def partition_log(self, connection: BaseDatabaseWrapper) -> None:
        partitioning.partition(connection)

    def unpartition_log(self, connection: BaseDatabaseWrapper) -> None:
        partitioning.unpartition(connection)

    def log_bytes(self, connection: BaseDatabaseWrapper) -> int | None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT SUM(pg_total_relation_size(relid)) FROM"
                " (SELECT relid FROM pg_partition_tree('realtime_wal') UNION ALL"
                " SELECT 'realtime_wal_number'::regclass) AS tables"
            )
            return int(cursor.fetchone()[0])

    def forgets_in_a_crash(self, table: str) -> tuple[str, ...]:
        return (f'ALTER TABLE "{table}" SET UNLOGGED',)

    def outlives_a_crash(self, table: str) -> tuple[str, ...]:
        return (f'ALTER TABLE "{table}" SET LOGGED',)


def _id_sequence(cursor: Any) -> str | None:
    """The sequence behind the ids of the log's table, as SQL."""
    cursor.execute("SELECT pg_get_serial_sequence('realtime_wal', 'id')")
    (sequence,) = cursor.fetchone()
    return None if sequence is None else str(sequence)


vendor: Vendor = Postgresql()
