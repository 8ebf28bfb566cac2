"""The status of a running installation, read from its database.

Everything comes from tables, so any process on any machine can read it. Changes nothing. Runs in a
database thread; raises what the database raises.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now

from realtime.event_log import leadership
from realtime.event_log.leadership import LeaseState
from realtime.models import Process
from realtime.ops import handler_status, webhook_status
from realtime.ops.handler_status import HandlerStatus
from realtime.ops.webhook_status import WebhookStatus
from realtime.process import registry
from realtime.wal import clock
from realtime.wal.backlog import count, unnumbered
from realtime.wal.head import Head, find_head
from realtime.wal.vendor import vendor_of

# A health check does not count further than this.
COUNT_MOST = 10_000
# Entries that wait longer than this have no leader: a standby takes over in less.
IDLE_MS = 5_000


class Numbering(msgspec.Struct, frozen=True):
    """The state of numbering. `lag_ms` is the age of the oldest entry without a number; `leader`
    is None when no process numbers."""

    epoch: str
    head: int
    backlog: int
    lag_ms: int
    leader: str | None
    term: int


class Stored(msgspec.Struct, frozen=True):
    """The part of the log that is kept. `bytes` is None where the database does not tell,
    `partitions` where the log is one table. `strays`: entries for which no partition was made in
    time, counted up to COUNT_MOST."""

    entries: int
    oldest_seq: int | None
    bytes: int | None
    partitions: int | None = None
    strays: int = 0


class ProcessStatus(msgspec.Struct, frozen=True):
    """A running process, as of `seen_ms` ago. `behind` is the number of events it had yet to
    deliver."""

    id: str
    kind: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_ms: int
    position: int
    behind: int
    connections: int
    channels: int
    subscriptions: int
    tailing: bool
    leading: bool
    holding_seq: int | None
    counters: dict[str, int]


class Status(msgspec.Struct, frozen=True):
    """Numbering, storage, processes, handlers and webhooks; `heals` counts reads of missed
    entries."""

    numbering: Numbering
    stored: Stored
    processes: list[ProcessStatus]
    heals: int
    handlers: list[HandlerStatus] = []
    webhooks: list[WebhookStatus] = []

    @property
    def leaderless(self) -> bool:
        """Whether entries wait and no process numbers them."""
        return self.numbering.leader is None and self.numbering.backlog > 0


def read(alias: str, most: int | None = None) -> Status:
    """The status of the installation on this database. Counts a backlog up to `most` entries."""
    connection = connections[alias]
    numbering = read_numbering(alias, most)
    processes = [
        _process_status(row) for row in registry.alive(alias).annotate(now=Now()).order_by("pk")
    ]
    heals = sum(process.counters.get("heals", 0) for process in processes)
    handlers = handler_status.read(alias)
    webhooks = webhook_status.read(alias)
    return Status(numbering, _stored(connection), processes, heals, handlers, webhooks)


def read_numbering(alias: str, most: int | None = None) -> Numbering:
    """How far the log is numbered, and by which leader. Counts a backlog up to `most` entries."""
    connection = connections[alias]
    head = find_head(connection) or Head(epoch="", seq=0)
    lease = leadership.find_lease(connection)
    entries, parameters = unnumbered(connection, "w.id, w.captured_us")
    with connection.cursor() as cursor:
        # The lowest id is about the oldest entry.
        cursor.execute(
            f"SELECT {clock.now_us_sql(connection)} - captured_us FROM ({entries}) AS w"
            " ORDER BY id LIMIT 1",
            parameters,
        )
        oldest = cursor.fetchone()
    backlog = 0 if oldest is None else count(connection, most)
    lag_ms = 0 if oldest is None else max(0, int(oldest[0]) // 1000)
    leads = lease is not None and _leads(connection, lease, lag_ms)
    return Numbering(
        epoch=head.epoch,
        head=head.seq,
        backlog=backlog,
        lag_ms=lag_ms,
        leader=lease.lead.leader if lease is not None and leads else None,
        term=0 if lease is None else lease.lead.term,
    )


def _leads(connection: BaseDatabaseWrapper, lease: LeaseState, lag_ms: int) -> bool:
    """Whether the leader in the head row still numbers."""
    leader = lease.lead.leader
    if not leader or lease.left_us > 0:
        return bool(leader)
    # Where an idle leader does not renew its lease, it counts while its process runs and no entries
    # wait.
    idle = not vendor_of(connection).renews_idle_leases and lag_ms < IDLE_MS
    return idle and not leadership.is_gone(leader)


def _process_status(row: Process) -> ProcessStatus:
    now: datetime = row.now  # type: ignore[attr-defined]
    return ProcessStatus(
        id=row.id,
        kind=row.kind,
        host=row.host,
        pid=row.pid,
        version=row.version,
        started_at=row.started_at,
        seen_ms=max(0, int((now - row.seen_at).total_seconds() * 1000)),
        position=row.position,
        behind=row.behind,
        connections=row.connections,
        channels=row.channels,
        subscriptions=row.subscriptions,
        tailing=row.tailing,
        leading=row.leading,
        holding_seq=row.holding_seq,
        counters=row.counters,
    )


def _stored(connection: BaseDatabaseWrapper) -> Stored:
    with connection.cursor() as cursor:
        cursor.execute("SELECT MIN(seq), MAX(seq) FROM realtime_wal_number")
        first, last = cursor.fetchone()
    size = vendor_of(connection).log_bytes(connection)
    partitions = vendor_of(connection).partitions(connection)
    return Stored(
        # Numbers have no gaps, so no count is needed.
        0 if first is None else last - first + 1,
        first,
        size,
        None if partitions is None else len(partitions.layout().partitions),
        0 if partitions is None else partitions.strays(COUNT_MOST),
    )
