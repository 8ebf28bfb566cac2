"""The rows of the running processes, with their leases, in the database.

A process renews its row every few seconds and deletes rows whose lease has expired, so that read
holds and presence rows end even after a crash. Times are by the database's clock, because the
clocks of several machines differ. Everything here runs in a database thread.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from django.db import connections, transaction
from django.db.models import DateTimeField, ExpressionWrapper, Q, QuerySet
from django.db.models.functions import Now
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from realtime import __version__
from realtime.event_log.read_holds import holds
from realtime.handling import holds as handler_holds
from realtime.models import PresenceMember, PresenceNumber, Process
from realtime.util.database_threads import DATABASE_ERRORS
from realtime.wal.head import find_head

logger = logging.getLogger("realtime.processes")

LEASE_SECONDS = 30.0
_LEASE = timedelta(seconds=LEASE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures that a process writes into its row."""

    position: int = 0
    connections: int = 0
    channels: int = 0
    subscriptions: int = 0
    tailing: bool = False
    leading: bool = False
    counters: Mapping[str, int] = field(default_factory=dict)


class Registration:
    """The row of one process. Methods raise what the database raises."""

    def __init__(self, alias: str, id_: str, kind: Process.Kind) -> None:
        self.alias = alias
        self.id = id_
        self.kind = kind
        # A renewal goes on when its task is cancelled, and must not write the row after `leave`.
        self._lock = threading.Lock()
        self._left = False
        if os.environ.get(DJANGO_AUTORELOAD_ENV) == "true":
            # The autoreloader ends a process in the middle of its work; the row should not wait for
            # its lease then.
            atexit.register(self._leave_at_exit)

    def renew(self, report: Report) -> bool:
        """Write the report and extend the lease. False if there was no row: a new one was made, and
        rows that referenced the former one are gone. After `leave` nothing is written."""
        with self._lock:
            return self._left or self._renew(report)

    def _renew(self, report: Report) -> bool:
        self._expire()
        behind = 0
        if self.kind == Process.Kind.SERVER:
            # Computed here and not by readers of the row: the head moves on after the report.
            head = find_head(connections[self.alias])
            behind = 0 if head is None else max(0, head.seq - report.position)
        figures = {
            "position": report.position,
            "behind": behind,
            "connections": report.connections,
            "channels": report.channels,
            "subscriptions": report.subscriptions,
            "tailing": report.tailing,
            "leading": report.leading,
            "counters": dict(report.counters),
            "holding_seq": holds.lowest,
            "seen_at": Now(),
            "lease": _from_now(),
        }
        rows = Process.objects.using(self.alias)
        with transaction.atomic(using=self.alias):
            if rows.filter(pk=self.id).update(**figures):
                return True
            # A server of an older version deletes a process without its number.
            registered = rows.values("pk")
            PresenceNumber.objects.using(self.alias).exclude(pk__in=registered).delete()
            rows.create(
                id=self.id,
                kind=self.kind,
                host=socket.gethostname()[:255],
                pid=os.getpid(),
                version=__version__,
                started_at=Now(),
                **figures,
            )
        return False

    def leave(self) -> None:
        """Delete the row, with everything that references it."""
        with self._lock:
            self._left = True
            self._leave()

    def _leave_at_exit(self) -> None:
        if self._lock.acquire(timeout=1.0):
            try:
                if not self._left:
                    self._left = True
                    self._leave()
            except DATABASE_ERRORS as error:
                logger.debug("row not left: %s", error, extra={"action": "lease_failing"})
            finally:
                self._lock.release()

    def _leave(self) -> None:
        with transaction.atomic(using=self.alias):
            self._delete(self.id)

    def _delete(self, id_: str) -> None:
        # Its presence rows first.
        PresenceMember.objects.using(self.alias).filter(process=id_).delete()
        PresenceNumber.objects.using(self.alias).filter(pk=id_).delete()
        Process.objects.using(self.alias).filter(pk=id_).delete()

    def _expire(self) -> None:
        # Read first: on SQLite a DELETE takes the write lock even when it finds nothing. One by
        # one, so that two processes that do this at once cannot wait for each other.
        rows = Process.objects.using(self.alias)
        # So far ahead only where it was written before the clock was set back.
        ahead = Q(lease__gt=Now() + 2 * _LEASE)
        expired = rows.filter(Q(lease__lt=Now()) | ahead).order_by("pk")
        for id_, kind, host, pid in list(expired.values_list("id", "kind", "host", "pid")):
            if rows.filter(ahead, pk=id_).update(lease=_from_now()):
                # Who lives renews it, and who has ended does not.
                continue
            with transaction.atomic(using=self.alias):
                # The update locks the row: a renewal at the same moment either waits and then finds
                # no row, or comes first and keeps it.
                deleted = rows.filter(pk=id_, lease__lt=Now()).update(leading=False)
                if deleted:
                    self._delete(id_)
            if deleted:
                logger.warning(
                    "%s %s:%s did not renew its lease and is taken for dead",
                    kind,
                    host,
                    pid,
                    extra={"action": "lease_expired", "id": id_},
                )


def _from_now() -> ExpressionWrapper:
    return ExpressionWrapper(Now() + _LEASE, output_field=DateTimeField())


def alive(alias: str) -> QuerySet[Process]:
    """The processes whose lease has not expired."""
    return Process.objects.using(alias).filter(lease__gte=Now())


def workers(alias: str) -> list[str]:
    """The ids of the workers whose lease has not expired."""
    rows = alive(alias).filter(kind=Process.Kind.WORKER).order_by("pk")
    return list(rows.values_list("pk", flat=True))


def lowest_needed(alias: str) -> int | None:
    """The lowest seq that a running process still has to read, for a replay or because a server
    has not delivered it yet, or that a handler has to read. None if there is none."""
    needed = []
    of_handlers = handler_holds.lowest_needed(alias)
    if of_handlers is not None:
        needed.append(of_handlers)
    for kind, position, holding_seq in alive(alias).values_list("kind", "position", "holding_seq"):
        if holding_seq is not None:
            needed.append(holding_seq)
        if kind == Process.Kind.SERVER:
            needed.append(position + 1)
    return min(needed, default=None)
