"""Passing broadcasts of processes that no channel layer connects with the servers: rows of
`realtime_passing`, which is neither captured nor part of the log.

A sender inserts a row. Who tails the log finds it and publishes it on the bus: the leader where the
layer reaches all servers, else every server for itself. A row stays for a minute, so that all of
them find it, and the leader deletes it. Rows become visible in the order of their commits, which
their numbers do not tell: so which rows were published is remembered one by one.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection
from datetime import timedelta

from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now

from realtime import conf
from realtime.models import PassingBroadcast
from realtime.topics.broadcast import Broadcast, PassingBatch, in_batches

logger = logging.getLogger("realtime.broadcast")

KEEP_SECONDS = 60.0
# A new leader does not know what the last one has published. Servers skip what they have had.
_OVERLAP = timedelta(seconds=10)
_AT_ONCE = 500
# So many broadcasts wait while the layer is down. It is the newest that are kept.
_MOST_WAITING = 10_000

# A number may come again, after a crash of the database or a flush. A mark does not.
_Row = tuple[int, str]


async def put_async(*messages: Broadcast) -> None:
    """`put` for async callers, in the thread that may have a transaction of theirs."""
    await sync_to_async(put, thread_sensitive=True)(*messages)


def put(*messages: Broadcast) -> None:
    """Have broadcasts sent once the open transaction commits, or now. Raises what the database
    raises."""
    with transaction.atomic(using=conf.current().DATABASE):
        PassingBroadcast.objects.using(conf.current().DATABASE).bulk_create(
            PassingBroadcast(
                mark=secrets.token_hex(12),
                topic=message.topic,
                private=message.private,
                event=message.event or "",
                payload=message.payload,
                encoding=message.encoding,
                user_id=message.user_id,
            )
            for message in messages
        )


class PassingReader:
    """Publishes the rows that it has not published yet. One thread calls it at a time.

    `publish` raises when a batch cannot be sent; it is then sent again later. `shared`: what is
    published reaches all servers, so only the leader publishes. Where it is not, `begin` comes
    before anybody listens. Of those that cannot be sent the leader keeps the newest `most_waiting`.
    """

    def __init__(
        self,
        publish: Callable[[PassingBatch], None],
        *,
        shared: bool,
        keep_seconds: float = KEEP_SECONDS,
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        self._publish = publish
        self._shared = shared
        self._keep_seconds = keep_seconds
        self._most_waiting = most_waiting
        # When it was published. None while others publish.
        self._published: dict[_Row, float] | None = None

    def begin(self, connection: BaseDatabaseWrapper) -> None:
        """What is there now was sent before anybody here could hear it. Raises what the database
        raises."""
        rows = PassingBroadcast.objects.using(connection.alias)
        self._published = dict.fromkeys(rows.values_list("number", "mark"), time.monotonic())

    def look(self, connection: BaseDatabaseWrapper, leading: bool) -> bool:
        """Publish what is new, and as the leader delete what is old. Returns whether anything was
        published. Raises what the database raises."""
        if self._shared and not leading:
            self._published = None
            return False
        rows = PassingBroadcast.objects.using(connection.alias).order_by("number")
        now = time.monotonic()
        there = list(rows.values_list("number", "mark"))
        if self._published is None:
            recent = rows.filter(sent_at__gte=Now() - _OVERLAP).values_list("number", "mark")
            self._published = dict.fromkeys(set(there).difference(recent), now)
        published = {row: self._published.get(row) for row in there}
        self._published = {row: at for row, at in published.items() if at is not None}
        new = [number for (number, _), at in published.items() if at is None]
        some = False
        for start in range(0, len(new), _AT_ONCE):
            if not self._send(list(rows.filter(pk__in=new[start : start + _AT_ONCE]))):
                break
            some = True
        if leading:
            self._drop_waiting(connection, there)
            self._delete(connection, now)
        return some

    def _send(self, rows: Collection[PassingBroadcast]) -> bool:
        assert self._published is not None
        waiting = iter(rows)
        for batch in in_batches(map(_broadcast, rows)):
            sent = [next(waiting) for _ in batch.broadcasts]
            try:
                self._publish(PassingBatch([row.mark for row in sent], batch.broadcasts))
            except Exception as error:
                # The bus has logged the outage.
                logger.debug("broadcast not sent: %s", error, extra={"action": "cast_lost"})
                return False
            now = time.monotonic()
            self._published.update(((row.number, row.mark), now) for row in sent)
        return True

    def _drop_waiting(self, connection: BaseDatabaseWrapper, there: Collection[_Row]) -> None:
        """Delete what waits beyond the bound, the oldest first."""
        assert self._published is not None
        waiting = [number for number, mark in there if (number, mark) not in self._published]
        gone = waiting[: max(len(waiting) - self._most_waiting, 0)]
        if not gone:
            return
        rows = PassingBroadcast.objects.using(connection.alias)
        for start in range(0, len(gone), _AT_ONCE):
            rows.filter(pk__in=gone[start : start + _AT_ONCE]).delete()
        logger.warning(
            "%s broadcasts that could not be sent were dropped: more than %s wait",
            len(gone),
            self._most_waiting,
            extra={"action": "cast_lost"},
        )

    def _delete(self, connection: BaseDatabaseWrapper, now: float) -> None:
        assert self._published is not None
        old = [n for (n, _), at in self._published.items() if now - at > self._keep_seconds]
        if old:
            PassingBroadcast.objects.using(connection.alias).filter(pk__in=old[:_AT_ONCE]).delete()


def _broadcast(row: PassingBroadcast) -> Broadcast:
    return Broadcast(
        topic=row.topic,
        private=row.private,
        event=row.event,
        payload=bytes(row.payload),
        encoding=row.encoding,
        user_id=row.user_id,
    )
