"""Makes the log's table on PostgreSQL a partitioned one, beside writers at work, and the other way.

The table that there is becomes the first partition, with its entries, indexes and all; nothing is
copied. For that its ids must be known to lie below a limit. A constraint tells PostgreSQL so, which
is proven while writers go on; a small table is simply read. Then the log is locked for a moment,
and triggers that write to it find the new table by its name.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable
from typing import Any

from django.db import OperationalError, ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.partitions import SPANS, Busy, Spans
from realtime.wal.postgresql import numbers
from realtime.wal.postgresql.partitions import (
    DEFAULT_NAME,
    PostgresqlPartitions,
    describe,
    is_partitioned,
    last_id,
    protect,
    short_locks,
)
from realtime.wal.postgresql.values import quote_name

logger = logging.getLogger(__name__)

FIRST_NAME = "realtime_wal_first"
_LIMIT = "realtime_wal_first_ids"
# A table of this size is read within some hundredths of a second.
_SMALL_BYTES = 32 * 1024 * 1024
# How long a lock is waited for, and how often.
_LOCK_MS = 500
_ATTEMPTS = 40
_PAUSE = 0.5
_COPIED = "INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMMENTS"

_TABLE = """
SELECT c.relnamespace::regnamespace::text, pg_get_userbyid(c.relowner), c.relrowsecurity,
       c.relforcerowsecurity, a.attidentity <> '',
       pg_get_serial_sequence('realtime_wal', 'id')
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'id'
WHERE c.oid = 'realtime_wal'::regclass
"""
_INDEXES = """
SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = 'realtime_wal'::regclass AND NOT i.indisprimary ORDER BY 1
"""
_PRIMARY = """
SELECT conname FROM pg_constraint WHERE conrelid = 'realtime_wal'::regclass AND contype = 'p'
"""
_GRANTS = """
SELECT acl.privilege_type, acl.is_grantable,
       CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END
FROM pg_class AS c, aclexplode(c.relacl) AS acl
WHERE c.oid = 'realtime_wal'::regclass AND acl.grantee <> c.relowner
"""


def partition(
    connection: BaseDatabaseWrapper,
    spans: Spans = SPANS,
    *,
    small_bytes: int = _SMALL_BYTES,
    attempts: int = _ATTEMPTS,
) -> None:
    """Keep the log in partitions, if it is not yet. A table of up to `small_bytes` is read while
    it is locked, which is tried so many times. Raises OperationalError where the log stays locked
    by others."""
    if is_partitioned(connection):
        return
    _patiently(connection, lambda: _drop_limit(connection))
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_table_size('realtime_wal')")
        small = int(cursor.fetchone()[0]) <= small_bytes
        end = spans.first_end(last_id(cursor))
    try:
        if not small:
            _prove(connection, end)
        _patiently(connection, lambda: _swap(connection, spans, end, small), attempts)
    except BaseException:
        # Left behind it would refuse entries from its limit on.
        _patiently(connection, lambda: _drop_limit(connection))
        raise
    with contextlib.suppress(Busy):
        PostgresqlPartitions(connection, spans).make_missing()


def unpartition(connection: BaseDatabaseWrapper) -> None:
    """Copy all entries into one table again. Writers wait meanwhile."""
    if is_partitioned(connection):
        _patiently(connection, lambda: _join(connection))


def _prove(connection: BaseDatabaseWrapper, end: int) -> None:
    """Have PostgreSQL know that all ids are below `end`. Writers go on."""

    def add() -> None:
        with short_locks(connection, _LOCK_MS) as cursor:
            cursor.execute(
                f"ALTER TABLE realtime_wal ADD CONSTRAINT {_LIMIT} CHECK (id < {end}) NOT VALID"
            )

    _patiently(connection, add)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE realtime_wal VALIDATE CONSTRAINT {_LIMIT}")


def _drop_limit(connection: BaseDatabaseWrapper) -> None:
    """Drop the constraint, also that of an attempt that was interrupted."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text FROM pg_constraint WHERE conname = %s"
            " AND conrelid = 'realtime_wal'::regclass",
            [_LIMIT],
        )
        if cursor.fetchone() is None:
            return
    with short_locks(connection, _LOCK_MS) as cursor:
        cursor.execute(f"ALTER TABLE realtime_wal DROP CONSTRAINT IF EXISTS {_LIMIT}")


def _swap(connection: BaseDatabaseWrapper, spans: Spans, end: int, small: bool) -> None:
    with short_locks(connection, _LOCK_MS) as cursor:
        cursor.execute("LOCK TABLE realtime_wal IN ACCESS EXCLUSIVE MODE")
        newest = last_id(cursor)
        if small:
            end = spans.first_end(newest)
        schema, owner, secured, forced, identity, sequence = _one(cursor, _TABLE)
        indexes = _all(cursor, _INDEXES)
        (primary,) = _one(cursor, _PRIMARY)
        grants = _all(cursor, _GRANTS)
        first, log = f"{schema}.{FIRST_NAME}", f"{schema}.realtime_wal"
        _run(cursor, *numbers.UNBIND)
        for name in (primary, *(name for name, _ in indexes)):
            # The new table's get their names; both have the number of the old one's.
            other = quote_name(f"{name[:50]}_first")
            _run(cursor, f"ALTER INDEX {schema}.{quote_name(name)} RENAME TO {other}")
        _run(
            cursor,
            f"ALTER TABLE {log} RENAME TO {FIRST_NAME}",
            f"CREATE TABLE {log} (LIKE {first} {_COPIED}) PARTITION BY RANGE (id)",
            f"ALTER TABLE {log} OWNER TO {quote_name(owner)}",
            f"ALTER TABLE {log} ADD CONSTRAINT {quote_name(primary)} PRIMARY KEY (id)",
            *(definition for _, definition in indexes),
        )
        if identity:
            # PostgreSQL keeps no identity in partitions before 17.
            sequence = f"{schema}.realtime_wal_id_seq"
            _run(
                cursor,
                f"ALTER TABLE {first} ALTER COLUMN id DROP IDENTITY",
                f"CREATE SEQUENCE {sequence} AS bigint START {newest + 1}",
                f"ALTER SEQUENCE {sequence} OWNER TO {quote_name(owner)}",
            )
        else:
            _run(cursor, f"ALTER TABLE {first} ALTER COLUMN id DROP DEFAULT")
        _run(
            cursor,
            f"ALTER TABLE {log} ALTER COLUMN id SET DEFAULT nextval('{sequence}')",
            f"ALTER SEQUENCE {sequence} OWNED BY {log}.id",
            *_as_before(log, secured, forced, grants),
            f"ALTER TABLE {log} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ({end})",
            f"ALTER TABLE {first} DROP CONSTRAINT IF EXISTS {_LIMIT}",
            f"CREATE TABLE {schema}.{DEFAULT_NAME} PARTITION OF {log} DEFAULT",
            f"ALTER TABLE {schema}.{DEFAULT_NAME} OWNER TO {quote_name(owner)}",
            *describe(log),
            *describe(first),
            *describe(f"{schema}.{DEFAULT_NAME}"),
            *protect(first),
            *protect(f"{schema}.{DEFAULT_NAME}"),
            *numbers.BIND,
        )


def _join(connection: BaseDatabaseWrapper) -> None:
    with short_locks(connection, _LOCK_MS) as cursor:
        cursor.execute("LOCK TABLE realtime_wal IN ACCESS EXCLUSIVE MODE")
        schema, owner, secured, forced, _, sequence = _one(cursor, _TABLE)
        indexes = _all(cursor, _INDEXES)
        (primary,) = _one(cursor, _PRIMARY)
        grants = _all(cursor, _GRANTS)
        log, whole = f"{schema}.realtime_wal", f"{schema}.realtime_wal_whole"
        _run(
            cursor,
            *numbers.UNBIND,
            f"CREATE TABLE {whole} (LIKE {log} {_COPIED})",
            f"INSERT INTO {whole} SELECT * FROM {log}",
            f"ALTER SEQUENCE {sequence} OWNED BY {whole}.id",
            f"DROP TABLE {log}",
            f"ALTER TABLE {whole} RENAME TO realtime_wal",
            f"ALTER TABLE {log} OWNER TO {quote_name(owner)}",
            f"ALTER TABLE {log} ADD CONSTRAINT {quote_name(primary)} PRIMARY KEY (id)",
            # Of a partitioned table they are told without its partitions.
            *(re.sub(r" ON ONLY ", " ON ", definition, count=1) for _, definition in indexes),
            *_as_before(log, secured, forced, grants),
            *describe(log),
            *numbers.BIND,
        )


def _as_before(log: str, secured: bool, forced: bool, grants: list[Any]) -> list[str]:
    """Statements that give the new table the row security and the grants of the one before."""
    found = [f"ALTER TABLE {log} ENABLE ROW LEVEL SECURITY"] if secured else []
    found += [f"ALTER TABLE {log} FORCE ROW LEVEL SECURITY"] if forced else []
    for privilege, grantable, grantee in grants:
        option = " WITH GRANT OPTION" if grantable else ""
        found.append(f"GRANT {privilege} ON {log} TO {grantee}{option}")
    return found


def _patiently(
    connection: BaseDatabaseWrapper, change: Callable[[], None], attempts: int = _ATTEMPTS
) -> None:
    """Try until the log can be locked. Raises OperationalError."""
    attempts = 1 if connection.in_atomic_block else attempts
    for attempt in range(1, attempts + 1):
        try:
            return change()
        except Busy as error:
            if attempt == attempts:
                raise OperationalError(
                    f"realtime_wal cannot be locked, because {error}: end transactions that are"
                    " open for long, and run migrate again"
                ) from None
            time.sleep(_PAUSE)


def _one(cursor: Any, sql: str) -> Any:
    cursor.execute(sql)
    row = cursor.fetchone()
    if row is None:
        raise ProgrammingError("realtime_wal has no primary key")
    return row


def _all(cursor: Any, sql: str) -> list[Any]:
    cursor.execute(sql)
    return list(cursor.fetchall())


def _run(cursor: Any, *statements: str) -> None:
    for statement in statements:
        cursor.execute(statement)
