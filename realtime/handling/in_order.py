"""A handler that gets its changes in the order of the log, in a thread of its own.

The cursor in the database is moved by each attempt that succeeds, and now and then by the runner
over what does not concern the handler.
"""

from __future__ import annotations

from realtime.event_log.event import DatabaseEvent
from realtime.handling import cursors
from realtime.handling.cancellable_lock import CancellableLock
from realtime.handling.cursors import Lease
from realtime.handling.handler_thread import HandlerThread
from realtime.handling.log_feed import ChangesLost, LogFeed
from realtime.handling.matching import Matcher
from realtime.handling.unit_handler import MOST_BYTES, Unit, UnitHandler


class InOrder(HandlerThread):
    """Owns its position: everything up to it is done, or does not concern the handler."""

    def __init__(
        self, lease: Lease, matcher: Matcher, feed: LogFeed, epoch: str, lock: CancellableLock
    ) -> None:
        super().__init__(lease, matcher, feed, epoch, matcher.definition.batch)
        self._saved = -1
        self._units = UnitHandler(lease, matcher, epoch, self, lock, self._stopping)

    def save(self) -> None:
        with self._news:
            position = self._read_upto
        if position > self._saved:
            cursors.pass_over(self.lease, position)
            self._saved = position
        if self._done and max(self._done) <= position:
            cursors.forget_done(self.lease, position)
            self._done = set()

    def give_up_if_overdue(self) -> None:
        self._units.give_up_if_overdue()

    @property
    def overdue(self) -> bool:
        return self._units.overdue

    def count_overdue(self) -> None:
        self._units.count_overdue()

    def give_up(self) -> None:
        self._units.give_up()

    def run(self) -> None:
        row = self._load()
        self._units.remember(row)
        self._done = cursors.done_after(self.lease, row.seq)
        self._saved = row.seq
        self._move(row.seq)
        while not self._stopping.is_set():
            unit = self._gather()
            if unit is None:
                self._wait()
            else:
                self._units.handle(unit)

    def _gather(self) -> Unit | None:
        """The next changes to handle together; None if there is none at the moment."""
        events: list[DatabaseEvent] = []
        size = 0
        upto = self._read_upto
        suspect = self._suspects > 0
        most = 1 if suspect else self._definition.batch
        while len(events) < most and size < MOST_BYTES and not self._stopping.is_set():
            try:
                event = self._next(upto)
            except ChangesLost:
                if events:
                    break
                raise
            if event is None:
                break
            upto = event.seq
            if self._concerns(event):
                events.append(event)
                size += event.size
            elif not events:
                self._move(upto)
        return Unit(tuple(events), upto, suspect) if events else None

    def _move(self, seq: int) -> None:
        with self._news:
            self._read(seq)

    def _read(self, upto: int) -> None:
        self._read_upto = max(self._read_upto, upto)

    # --- progress of its units --------------------------------------------------------------------

    def record(self, unit: Unit, count: int) -> None:
        cursors.advance(self.lease, unit.upto, count)

    def is_recorded(self, unit: Unit) -> bool:
        return cursors.load(self.lease).seq >= unit.upto

    def passed(self, unit: Unit) -> None:
        self._saved = unit.upto
        self._move(unit.upto)
        self._suspects -= unit.suspect
