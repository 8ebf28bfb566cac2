"""The tailer: look, number what became visible if it leads, publish what was numbered, repeat.

Runs in a thread of its own with a database connection of its own, inside a server process
(embedded) or under `manage.py tail_wal`. Of several tailers one leads (see `leadership`); a
standby that follows still publishes what the leader numbered, for a layer that reaches its own
process only. Publishing is best effort: what a publication loses, every dispatcher reads from the
log. Outlives a locked, missing or broken database.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError, InterfaceError

from realtime.event_log.batch import Batch
from realtime.event_log.leadership import Deposed, Leadership, Role
from realtime.event_log.sequencer import Look, Sequencer
from realtime.event_log.substitute import Substitute
from realtime.event_log.table import BATCH, UnknownRelation, read_rows, relations
from realtime.event_log.taken_ids import TakenIds
from realtime.util.backoff import Backoff
from realtime.util.database_threads import passes, unpooled
from realtime.util.outage_log import OutageLog
from realtime.wal.head import Head, begin_epoch, renew_epoch
from realtime.wal.vendor import vendor_of

logger = logging.getLogger("realtime.tailer")

# Events come in groups, so after one the log is read more often for a while.
_BUSY_LOOKS = 200
_BUSY_FRACTION = 0.25
# A standby that does not follow only looks at the lease.
_STANDBY_SECONDS = 0.1
_BACKOFF_FIRST = 0.05
_BACKOFF_MOST = 5.0
# A backlog is numbered in growing steps: on PostgreSQL each step ranks what is left of it, so equal
# small steps over a large backlog would cost its square; a bound keeps the lock short.
STEP_FACTOR = 4
STEP_MOST = 32 * BATCH
# How long a stop waits for a file that another process keeps locked.
_RELEASE_WAIT_MS = 1_000


class Tailer:
    """One loop over the log of one database.

    `publish` is called in order, from this thread, with each batch; what it raises is logged once
    per outage and otherwise ignored. `on_role` is called from this thread when the tailer begins to
    lead or to stand by. `follow`: publish what others numbered also while standing by. `passing`
    is called from this thread while there are passing broadcasts, with whether this tailer leads;
    it returns whether any was new. `substitute`: it never takes the lead, and numbers only while
    nobody has it.
    """

    def __init__(
        self,
        alias: str,
        interval: float,
        publish: Callable[[Batch], None],
        *,
        follow: bool = True,
        on_role: Callable[[Role], None] | None = None,
        passing: Callable[[BaseDatabaseWrapper, bool], bool] | None = None,
        substitute: bool = False,
    ) -> None:
        self._alias = alias
        self._interval = interval
        self._publish = publish
        self._follow = follow
        self._passing = passing
        self._stop = threading.Event()
        self._leadership = Substitute() if substitute else Leadership(on_role)
        self._sequencer = Sequencer()
        self._position: Head | None = None
        self._undecided = False
        self._outage = OutageLog(
            logger,
            failing="the log cannot be read: %s",
            failing_action="tail_failing",
            works="the log can be read again",
            works_action="tail_works",
        )
        self._publish_outage = OutageLog(
            logger,
            failing="publishing failed: %s; servers read the log themselves",
            failing_action="publish_failed",
            works="publishing works again",
            works_action="publish_works",
        )

    def stop(self) -> None:
        """Let the loop end after the current batch. From any thread, any number of times."""
        self._stop.set()

    @property
    def id(self) -> str:
        """The id of this tailer in the head row."""
        return self._leadership.id

    @property
    def leading(self) -> bool:
        """Whether this tailer numbers, as far as it knows."""
        return self._leadership.leading

    @property
    def position(self) -> int:
        """The seq up to which everything was published; 0 before the first look."""
        return 0 if self._position is None else self._position.seq

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def failing(self) -> str | None:
        """The last error of the database while it fails; None while it works."""
        return self._outage.problem

    def run(self) -> None:
        """Tail until stopped, then give up the lead."""
        with unpooled(self._alias):
            self._run()

    def _run(self) -> None:
        connection = connections[self._alias]
        detector = vendor_of(connection).change_detector(connection)
        busy = 0
        ids = TakenIds()
        backoff = Backoff(_BACKOFF_FIRST, _BACKOFF_MOST)
        try:
            while not self._stop.is_set():
                try:
                    if ids.look(connection) and self._sequencer.check_ids(connection):
                        logger.warning(
                            "entries had ids below those that were drawn before: they are numbered "
                            "now",
                            extra={"action": "ids_out_of_order"},
                        )
                    changed = detector.changed() or self._undecided
                    busy = _BUSY_LOOKS if changed and self._poll() else max(busy - 1, 0)
                except Exception as error:
                    # Whatever it is: without the loop nothing is numbered any more.
                    if self._outage.problem is None and not passes(error):
                        logger.exception("tailing failed", extra={"action": "tail_failing"})
                    self._outage.failed(error)
                    detector.forget()
                    self._sequencer.forget()
                    self._close()
                    self._stop.wait(backoff.next())
                    continue
                self._outage.worked()
                backoff.reset()
                self._stop.wait(self._pause(busy > 0))
        finally:
            self._release()
            self._close()

    def drain(self) -> int:
        """Number and publish everything that is visible now, with or without the lead; how many
        entries were numbered. Raises what the database raises."""
        connection = connections[self._alias]
        numbered = 0
        step = BATCH
        while not self._stop.is_set():
            look = self._look(connection)
            self._publish_new(connection, look.head)
            if not look.waiting:
                break
            numbered += self._sequencer.number(connection, step)
            step = min(step * STEP_FACTOR, STEP_MOST)
        return numbered

    def _poll(self) -> bool:
        """Number and publish what is visible now. Returns whether there was anything to number."""
        connection = connections[self._alias]
        worked = False
        step = BATCH
        while True:
            look = self._look(connection)
            led = self._leadership.leading
            leading = self._leadership.consider(connection, look.lease, look.head.seq, look.waiting)
            if leading or self._follow:
                self._publish_new(connection, look.head)
            else:
                self._position = look.head
            if leading and not led and not self._follow:
                # The last leader may have numbered entries and ended before publishing them.
                self._send(Batch(look.head.epoch, look.head.seq, [], []))
            if look.passing and self._passing is not None:
                worked = self._passing(connection, leading) or worked
            # Entries wait for another leader: look again even if the file does not change.
            self._undecided = look.waiting and not leading
            if self._stop.is_set() or not look.waiting or not leading:
                return worked
            try:
                self._sequencer.number(connection, step, self._leadership.lead)
            except Deposed:
                self._leadership.lost()
            worked = True
            step = min(step * STEP_FACTOR, STEP_MOST)

    def _look(self, connection: BaseDatabaseWrapper) -> Look:
        look = self._sequencer.look(connection)
        if self._position is None:
            self._position = look.head
        return look

    def _pause(self, busy: bool) -> float:
        if not self.leading and not self._follow:
            return max(self._interval, _STANDBY_SECONDS)
        return self._interval * _BUSY_FRACTION if busy else self._interval

    def _publish_new(self, connection: BaseDatabaseWrapper, head: Head) -> None:
        position = self._position
        assert position is not None
        if head.epoch == position.epoch and head.seq < position.seq:
            head = renew_epoch(connection, position)
        if head.epoch != position.epoch:
            logger.warning(
                "the log began a new epoch at seq %s",
                head.seq,
                extra={"action": "epoch_changed"},
            )
            self._send(Batch(head.epoch, head.seq, [], []))
            self._position = head
            return
        while position.seq < head.seq:
            self._leadership.renew(connection)
            try:
                rows = read_rows(self._alias, position.seq, head.seq)
            except UnknownRelation as error:
                # Entries came without their relation (a restore of one table). Waiting for it would
                # stop the log for good.
                logger.error(
                    "entries cannot be read, so the log begins anew behind them: %s",
                    error,
                    extra={"action": "epoch_changed"},
                )
                head = begin_epoch(connection)
                self._send(Batch(head.epoch, head.seq, [], []))
                self._position = head
                return
            if not rows:
                # The entries were pruned meanwhile; dispatchers notice the gap.
                self._position = head
                return
            used = {row.relation_id for row in rows}
            shapes = [relations[id_] for id_ in sorted(used)]
            self._send(Batch(head.epoch, position.seq, rows, shapes))
            position = Head(head.epoch, rows[-1].seq, rows[-1].commit_us)
            self._position = position
            if self._stop.is_set():
                return

    def _send(self, batch: Batch) -> None:
        try:
            self._publish(batch)
        except Exception as error:
            self._publish_outage.failed(error)
        else:
            self._publish_outage.worked()

    def _release(self) -> None:
        connection = connections[self._alias]
        if connection.connection is None:
            return
        # If this fails, the lease runs out.
        with contextlib.suppress(DatabaseError, InterfaceError, OSError):
            vendor_of(connection).limit_lock_wait(connection, _RELEASE_WAIT_MS)
            self._leadership.release(connection)

    def _close(self) -> None:
        try:
            connections[self._alias].close()
        except (DatabaseError, InterfaceError):
            # Drop a broken connection even if closing it fails.
            connections[self._alias].connection = None
