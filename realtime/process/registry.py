"""The rows of the processes that run, with their leases, in the database.

A process renews its row every few seconds and deletes the rows of those that did not, so what a
process holds ends with it, however it ended. Times are the database's, since the clocks of several
machines differ. Everything here runs in a database thread.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, QuerySet
from django.db.models.functions import Now

from realtime import __version__
from realtime.event_log.read_holds import holds
from realtime.models import LogHead, PresenceMember, Process

logger = logging.getLogger("realtime.processes")

LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a process says about itself."""

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
        # Who stops to wait for a renewal does not stop the renewal: it must not come after the end.
        self._turn = threading.Lock()
        self._left = False

    def renew(self, report: Report) -> bool:
        """Write the report and extend the lease. False when there was no row: it is made, and
        whatever hung on an earlier one is gone. After `leave` nothing is written."""
        with self._turn:
            return self._left or self._renew(report)

    def _renew(self, report: Report) -> bool:
        self._expire()
        behind = 0
        if self.kind == Process.Kind.SERVER:
            # Now, not when somebody asks: by then the head has moved on and the report has not.
            seqs = LogHead.objects.using(self.alias).values_list("seq", flat=True)
            behind = max(0, (seqs.first() or 0) - report.position)
        said = {
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
            "lease": ExpressionWrapper(
                Now() + timedelta(seconds=LEASE_SECONDS), output_field=DateTimeField()
            ),
        }
        rows = Process.objects.using(self.alias)
        with transaction.atomic(using=self.alias):
            if rows.filter(pk=self.id).update(**said):
                return True
            rows.create(
                id=self.id,
                kind=self.kind,
                host=socket.gethostname()[:255],
                pid=os.getpid(),
                version=__version__,
                started_at=Now(),
                **said,
            )
        return False

    def leave(self) -> None:
        """Delete the row: this process holds nothing any more."""
        with self._turn:
            self._left = True
            self._leave()

    def _leave(self) -> None:
        with transaction.atomic(using=self.alias):
            self._delete(self.id)

    def _delete(self, id_: str) -> None:
        # Those who are present at it go with it.
        PresenceMember.objects.using(self.alias).filter(process=id_).delete()
        Process.objects.using(self.alias).filter(pk=id_).delete()

    def _expire(self) -> None:
        # Looked for first: a DELETE takes the write lock on SQLite even when it finds nothing.
        # One by one, so that two who do this at once cannot wait for each other.
        rows = Process.objects.using(self.alias)
        expired = rows.filter(lease__lt=Now()).order_by("pk")
        for id_, kind, host, pid in list(expired.values_list("id", "kind", "host", "pid")):
            with transaction.atomic(using=self.alias):
                # Taken in hand by an update, so that a renewal at this moment waits and then finds
                # no row, or comes first and keeps it.
                dead = rows.filter(pk=id_, lease__lt=Now()).update(leading=False)
                if dead:
                    self._delete(id_)
            if dead:
                logger.warning(
                    "%s %s:%s did not renew its lease and is taken for dead",
                    kind,
                    host,
                    pid,
                    extra={"action": "lease_expired", "id": id_},
                )


def alive(alias: str) -> QuerySet[Process]:
    """The processes whose lease is good."""
    return Process.objects.using(alias).filter(lease__gte=Now())


def workers(alias: str) -> list[str]:
    """The ids of the living workers."""
    rows = alive(alias).filter(kind=Process.Kind.WORKER).order_by("pk")
    return list(rows.values_list("pk", flat=True))


def lowest_needed(alias: str) -> int | None:
    """The lowest seq that a living process still has to read: what a replay holds, and what a
    server has not handed on yet. None if nobody needs anything."""
    needed = []
    for kind, position, holding_seq in alive(alias).values_list("kind", "position", "holding_seq"):
        if holding_seq is not None:
            needed.append(holding_seq)
        if kind == Process.Kind.SERVER:
            needed.append(position + 1)
    return min(needed, default=None)
