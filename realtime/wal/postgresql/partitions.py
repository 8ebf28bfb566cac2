"""The partitions of the log on PostgreSQL.

Their locks are chosen so that no writer feels them. A new partition is attached, which leaves the
log's table to writers. An old one is emptied by TRUNCATE, for which it alone is locked, and writers
have left it behind. What remains is an empty table. To take it away the whole log has to be locked
for a moment, because PostgreSQL detaches no partition concurrently from a table that has a default
partition; so that is done at a moment when nobody holds the log, and it may wait for one.

Nothing is ever detached and kept: whatever is interrupted leaves partitions of the log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import IntegrityError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.partitions import SPANS, Busy, Contents, Layout, Partition, Spans
from realtime.wal.postgresql.values import quote_name

# Any number, the same in every process.
_MAKING_LOCK = 0x526F7764
# How long a lock is waited for. Writers that come meanwhile wait as long.
_ATTACH_MS = 100
_EMPTY_MS = 50
_DROP_MS = 20
# So many empty partitions may wait for a moment when nobody holds the log; then one is waited for.
_EMPTY_MOST = 8
# A default partition of this size is read within some hundredths of a second.
_SMALL_BYTES = 32 * 1024 * 1024
_LOCK_NOT_AVAILABLE = "55P03"

DEFAULT_NAME = "realtime_wal_default"

_PARTITIONS = """
SELECT c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid)
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('realtime_wal') AND NOT i.inhdetachpending
"""
_KIND = (
    "SELECT relkind::text, relnamespace::regnamespace::text, pg_get_userbyid(relowner)"
    " FROM pg_class WHERE oid = to_regclass('realtime_wal')"
)
# A constraint of the default partition while it is proven to hold no id of a range.
_LIMIT = "realtime_wal_default_ids"
_LIMITED = "SELECT 1 FROM pg_constraint WHERE conrelid = %s::regclass AND conname = %s"
_NOT_OURS = """
SELECT current_user, pg_get_userbyid(relowner)
FROM pg_class WHERE oid = to_regclass('realtime_wal') AND NOT pg_has_role(relowner, 'USAGE')
"""
_KEPT = "SELECT COALESCE(MAX(seq) - MIN(seq) + 1, 0) FROM realtime_wal_number"
# Sessions in the middle of one long statement that writes to the log, or that may be, because this
# role may not see what they do.
_LONG_WRITER = """
SELECT l.pid FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = to_regclass('realtime_wal') AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.mode = 'RowExclusiveLock' AND l.pid <> pg_backend_pid()
  AND COALESCE(a.backend_type, 'client backend') = 'client backend'
  AND COALESCE(a.state, 'active') NOT LIKE 'idle%%'
  AND COALESCE(a.query_start < clock_timestamp() - interval '1 second', true)
LIMIT 1
"""
# All columns of one row, so that numbers are looked up in the order of the partition.
_CONTENTS = """
SELECT COUNT(*), COUNT(n.seq), MAX(n.seq) FROM {partition} AS w
LEFT JOIN realtime_wal_number AS n ON n.entry_id = w.id AND n.entry_id < %s{first}
"""
_BOUND = re.compile(r"FOR VALUES FROM \((?:'?(-?\d+)'?|MINVALUE)\) TO \('?(-?\d+)'?\)")

# A role that gets rights on every new table of the schema (ALTER DEFAULT PRIVILEGES) would read the
# log past the row security of its table. Rights on the log do not need any on its partitions.
_PROTECT = """
DO $$ DECLARE grantee text; BEGIN
    FOR grantee IN
        SELECT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee))
        END FROM pg_class AS c, aclexplode(c.relacl) AS acl
        WHERE c.oid = '{name}'::regclass AND acl.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON {name} FROM %s', grantee);
    END LOOP;
END $$
"""


def parse(name: str, bound: str) -> Partition | None:
    """A partition from its name and its bounds as PostgreSQL prints them; None for the default
    partition."""
    found = _BOUND.fullmatch(bound)
    if found is None:
        return None
    first, end = found.groups()
    return Partition(name, None if first is None else int(first), int(end))


def protect(name: str) -> tuple[str, ...]:
    """Statements by which nobody but its owner reads this partition other than through the log."""
    literal = name.replace("'", "''")
    return (_PROTECT.format(name=literal), f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")


def describe(name: str) -> tuple[str, ...]:
    """Statements that tell the planner about this table of entries. After a few large transactions
    it would take any for a large part of the log, and read all of it at each look. And it would
    read what is new by ids, of which open transactions may have drawn very many."""
    return (
        f"ALTER TABLE {name} ALTER COLUMN txid SET (n_distinct = -0.1)",
        f"ALTER TABLE {name} ALTER COLUMN id SET STATISTICS 0",
    )


@contextmanager
def short_locks(connection: BaseDatabaseWrapper, milliseconds: int) -> Iterator[Any]:
    """A transaction, and a cursor of it, in which no lock is waited for longer. Raises Busy where
    one could not be had; nothing was changed then."""
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout')")
            (before,) = cursor.fetchone()
            _set_timeout(cursor, f"{milliseconds}ms")
            yield cursor
            # The transaction may be the caller's.
            _set_timeout(cursor, before)
    except OperationalError as error:
        if _sqlstate(error) == _LOCK_NOT_AVAILABLE:
            raise Busy("another session holds a part of the log") from None
        raise


def _sqlstate(error: Exception) -> Any:
    return getattr(error.__cause__, "sqlstate", None)


def _set_timeout(cursor: Any, value: str) -> None:
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", [value])


def last_id(cursor: Any) -> int:
    """The last id that was drawn for an entry, 0 for none."""
    cursor.execute("SELECT pg_get_serial_sequence('realtime_wal', 'id')")
    (sequence,) = cursor.fetchone()
    if sequence is None:
        cursor.execute("SELECT COALESCE(MAX(id), 0) FROM realtime_wal")
    else:
        cursor.execute(f"SELECT last_value - (NOT is_called)::int FROM {sequence}")
    return int(cursor.fetchone()[0])


class PostgresqlPartitions:
    """See `realtime.wal.partitions.Partitions`. A default partition of up to `small_bytes` is read
    while it is locked."""

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        spans: Spans = SPANS,
        *,
        small_bytes: int = _SMALL_BYTES,
    ) -> None:
        self._connection = connection
        self._spans = spans
        self._small_bytes = small_bytes

    def not_ours(self) -> str | None:
        with self._connection.cursor() as cursor:
            cursor.execute(_NOT_OURS)
            row = cursor.fetchone()
        if row is None:
            return None
        return f"the role {row[0]} does not own realtime_wal, as {row[1]} and its members do"

    def layout(self) -> Layout:
        with self._connection.cursor() as cursor:
            return self._layout(cursor)

    def strays(self, most: int) -> int:
        with self._connection.cursor() as cursor:
            default = self._default(cursor)
            if default is None:
                return 0
            cursor.execute(
                f"SELECT COUNT(*) FROM (SELECT 1 FROM {default} LIMIT {most:d}) AS strays"
            )
            return int(cursor.fetchone()[0])

    # --- making ---------------------------------------------------------------------------------

    def make_missing(self) -> int:
        made = 0
        self._drop_limit()
        while self._make_next():
            made += 1
        return made

    def _make_next(self) -> bool:
        with self._connection.cursor() as cursor:
            missing, layout = self._missing(cursor), self._layout(cursor)
            if not missing:
                return False
            default = self._default(cursor)
            cursor.execute("SELECT COALESCE(pg_table_size(to_regclass(%s)), 0)", [default])
            small = cursor.fetchone()[0] <= self._small_bytes
        if small or default is None:
            return self._attach_next()
        # PostgreSQL would read all of it before it attaches a partition, and its writers
        # would wait. So it is proven beforehand. Ids behind a gap go on meanwhile, so that range
        # begins further away.
        first, end = missing[0]
        if any(first > p.end for p in layout.partitions[-1:]):
            first, end = first + self._spans.least, end + self._spans.least
        try:
            self._prove(default, first, end)
            return self._attach_next((first, end))
        finally:
            # Left behind it would refuse entries of the range.
            self._drop_limit()

    def _prove(self, default: str, first: int, end: int) -> None:
        """Have PostgreSQL know that the default partition holds no id of this range. Writers go
        on."""
        with short_locks(self._connection, _ATTACH_MS) as cursor:
            cursor.execute(
                f"ALTER TABLE {default} ADD CONSTRAINT {_LIMIT}"
                f" CHECK (id < {first} OR id >= {end}) NOT VALID"
            )
        with transaction.atomic(using=self._connection.alias), self._connection.cursor() as cursor:
            if self._lock_making(cursor):
                cursor.execute(f"ALTER TABLE {default} VALIDATE CONSTRAINT {_LIMIT}")

    def _drop_limit(self) -> None:
        """Drop the constraint, also one that an attempt left behind which was killed."""
        with self._connection.cursor() as cursor:
            default = self._default(cursor)
            if default is None:
                return
            cursor.execute(_LIMITED, [default, _LIMIT])
            if cursor.fetchone() is None:
                return
        with short_locks(self._connection, _ATTACH_MS) as cursor:
            # Another process may be proving it at the moment.
            if self._lock_making(cursor):
                cursor.execute(f"ALTER TABLE {default} DROP CONSTRAINT IF EXISTS {_LIMIT}")

    def _lock_making(self, cursor: Any) -> bool:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_MAKING_LOCK])
        return bool(cursor.fetchone()[0])

    def _attach_next(self, proven: tuple[int, int] | None = None) -> bool:
        """Make the next partition, or that of the range for which the default partition is
        proven."""
        with short_locks(self._connection, _ATTACH_MS) as cursor:
            if not self._lock_making(cursor):
                return False
            # Another process may have made it meanwhile.
            missing = self._missing(cursor)
            if not missing:
                return False
            # It would not know the partition, and its rows would go to the default partition,
            # which refuses them from then on.
            cursor.execute(_LONG_WRITER)
            if found := cursor.fetchone():
                raise Busy(f"session {found[0]} is writing very many changes")
            first, end = missing[0] if proven is None else proven
            if first < missing[0][0]:
                raise Busy("changes come too quickly")
            try:
                self._make(cursor, first, end)
            except IntegrityError:
                # The default partition has got such ids since.
                raise Busy("changes come too quickly") from None
        return True

    def _missing(self, cursor: Any) -> list[tuple[int, int]]:
        layout = self._layout(cursor)
        cursor.execute(_KEPT)
        return self._spans.missing(layout, int(cursor.fetchone()[0]))

    def _make(self, cursor: Any, first: int, end: int) -> None:
        cursor.execute(_KIND)
        _, schema, owner = cursor.fetchone()
        name, bound = f"{schema}.realtime_wal_{first}", f"FROM ({first}) TO ({end})"
        # All locks on the log are taken by the last statement.
        for statement in (
            f"CREATE TABLE {name} (LIKE realtime_wal INCLUDING ALL)",
            f"ALTER TABLE {name} OWNER TO {quote_name(owner)}",
            *describe(name),
            *protect(name),
            f"ALTER TABLE realtime_wal ATTACH PARTITION {name} FOR VALUES {bound}",
        ):
            cursor.execute(statement)

    # --- pruning --------------------------------------------------------------------------------

    def newest_seq(self, partition: Partition) -> int | None:
        first, parameters = _from(partition, "entry_id")
        with self._connection.cursor() as cursor:
            cursor.execute(
                f"SELECT seq FROM realtime_wal_number WHERE entry_id < %s{first}"
                " ORDER BY entry_id DESC LIMIT 1",
                [partition.end, *parameters],
            )
            row = cursor.fetchone()
        return None if row is None else int(row[0])

    def last_seq(self, partition: Partition) -> int | None:
        first, parameters = _from(partition, "entry_id")
        with self._connection.cursor() as cursor:
            cursor.execute(
                f"SELECT MAX(seq) FROM realtime_wal_number WHERE entry_id < %s{first}",
                [partition.end, *parameters],
            )
            (found,) = cursor.fetchone()
        return None if found is None else int(found)

    def empty(self, partition: Partition, upto: Callable[[], int]) -> int | None:
        first, parameters = _from(partition, "n.entry_id")
        with short_locks(self._connection, _EMPTY_MS) as cursor:
            # From here on no transaction is open that wrote to the partition, and none begins to.
            # Readers go on.
            cursor.execute(f"LOCK TABLE ONLY {partition.name} IN SHARE MODE")
            bound = upto()
            cursor.execute(
                _CONTENTS.format(partition=partition.name, first=first),
                [partition.end, *parameters],
            )
            count, numbered, last = cursor.fetchone()
            if not Contents(last, waiting=numbered < count).beyond(bound):
                return None
            cursor.execute(f"TRUNCATE ONLY {partition.name}")
        return int(count)

    def drop_empty(self) -> int:
        with self._connection.cursor() as cursor:
            gone = self._empty_ones(cursor)
        if not gone:
            return 0
        with short_locks(self._connection, _DROP_MS) as cursor:
            wait = "" if len(gone) > _EMPTY_MOST else " NOWAIT"
            cursor.execute(f"LOCK TABLE ONLY realtime_wal IN ACCESS EXCLUSIVE MODE{wait}")
            # Looked at again, now that nobody can write.
            for name in self._empty_ones(cursor):
                cursor.execute(f"DROP TABLE {name}")
        return len(gone)

    def _empty_ones(self, cursor: Any) -> list[str]:
        found = []
        for partition in self._layout(cursor).closed:
            first, parameters = _from(partition, "entry_id")
            cursor.execute(
                f"SELECT NOT EXISTS (SELECT 1 FROM {partition.name}) AND NOT EXISTS"
                f" (SELECT 1 FROM realtime_wal_number WHERE entry_id < %s{first})",
                [partition.end, *parameters],
            )
            if cursor.fetchone()[0]:
                found.append(partition.name)
        return found

    # --- what there is --------------------------------------------------------------------------

    def _layout(self, cursor: Any) -> Layout:
        cursor.execute(_PARTITIONS)
        found = [parse(name, bound) for name, bound in cursor.fetchall()]
        partitions = sorted((p for p in found if p is not None), key=lambda p: p.end)
        stray = None
        if default := self._default(cursor):
            cursor.execute(f"SELECT MAX(id) FROM {default}")
            (stray,) = cursor.fetchone()
        return Layout(tuple(partitions), last_id(cursor), stray)

    def _default(self, cursor: Any) -> str | None:
        """The default partition; None where there is none that this role may read."""
        cursor.execute(_PARTITIONS)
        name = next((name for name, bound in cursor.fetchall() if bound == "DEFAULT"), None)
        if name is None:
            return None
        cursor.execute("SELECT has_table_privilege(%s::regclass, 'SELECT')", [name])
        return name if cursor.fetchone()[0] else None


def _from(partition: Partition, column: str) -> tuple[str, list[int]]:
    """SQL for the lower limit of the partition's ids, and its parameters."""
    return ("", []) if partition.first is None else (f" AND {column} >= %s", [partition.first])


def is_partitioned(connection: BaseDatabaseWrapper) -> bool:
    """Whether the log is kept in partitions: not before the migration that makes them."""
    with connection.cursor() as cursor:
        cursor.execute(_KIND)
        row = cursor.fetchone()
    return row is not None and row[0] == "p"
