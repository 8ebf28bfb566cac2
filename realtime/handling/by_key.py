"""A handler that gets changes of several keys at once, in order for each key.

One thread reads and hands changes out to lanes, each a thread; all changes of a key go to one lane.
A change that moves a row to another key waits for all before it, and all after it wait for it, as
for a table that was emptied. The cursor is a low-water mark: everything up to it is done. What is
done behind it is marked in the transaction that did it (`realtime.models.HandlerDone`), so a killed
process neither loses nor doubles anything.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque

from django.db import connections

from realtime.event_log.event import DatabaseEvent
from realtime.handling import cursors
from realtime.handling.cancellable_lock import CancellableLock
from realtime.handling.cursors import Lease
from realtime.handling.handler_thread import IDLE_SECONDS, HandlerThread
from realtime.handling.log_feed import LogFeed
from realtime.handling.low_water import LowWater
from realtime.handling.matching import Matcher
from realtime.handling.unit_handler import MOST_BYTES, Unit, UnitHandler
from realtime.models import Handler

# Changes that were handed out and are not all done, for each lane and change of a batch.
_AHEAD = 8


class ByKey(HandlerThread):
    """Owns which changes were handed out and which are done."""

    def __init__(
        self, lease: Lease, matcher: Matcher, feed: LogFeed, epoch: str, lock: CancellableLock
    ) -> None:
        definition = matcher.definition
        self._most_open = _AHEAD * definition.concurrency * definition.batch
        self._most_bytes = MOST_BYTES * definition.concurrency
        super().__init__(lease, matcher, feed, epoch, self._most_open + 1)
        self._saved = -1
        # Guarded by the condition, which lanes notify too.
        self._water = LowWater(-1)
        # Of what is handed out.
        self._bytes = 0
        self._failure: BaseException | None = None
        self._lanes = [
            _Lane(self, UnitHandler(lease, matcher, epoch, self, lock, self._stopping), number)
            for number in range(definition.concurrency)
        ]

    def save(self) -> None:
        with self._news:
            mark = self._water.mark
        if mark > self._saved:
            cursors.gather(self.lease, mark)
            self._saved = mark

    def give_up_if_overdue(self) -> None:
        for lane in self._lanes:
            lane.units.give_up_if_overdue()

    @property
    def overdue(self) -> bool:
        return any(lane.units.overdue for lane in self._lanes)

    def count_overdue(self) -> None:
        for lane in self._lanes:
            if lane.units.overdue:
                lane.units.count_overdue()

    def give_up(self) -> None:
        for lane in self._lanes:
            lane.units.give_up()

    def run(self) -> None:
        row = self._load()
        self._done = cursors.done_after(self.lease, row.seq)
        self._saved = row.seq
        with self._news:
            self._water = LowWater(row.seq)
            self._read_upto = row.seq
        for lane in self._lanes:
            lane.start(row)
        try:
            while not self._stopping.is_set():
                event = self._next(self._read_upto)
                if event is None:
                    self._wait()
                else:
                    self._hand_out(event)
        finally:
            self.stop()
            for lane in self._lanes:
                lane.join()
        if self._failure is not None:
            raise self._failure

    def _read(self, upto: int) -> None:
        self._read_upto = max(self._read_upto, upto)
        self._water.passed(upto)

    def _hand_out(self, event: DatabaseEvent) -> None:
        if not self._concerns(event):
            with self._news:
                self._read(event.seq)
            return
        keys = self.matcher.keys(event)
        suspect = self._suspects > 0
        alone = suspect or keys is None or len(keys) > 1
        most = 0 if alone else self._most_open
        number = 0 if keys is None else zlib.crc32(keys[-1].encode()) % len(self._lanes)
        with self._news:
            self._wait_for_lanes(most)
            if self._stopping.is_set():
                return
            self._water.begin(event.seq)
            self._bytes += event.size
            self._read_upto = event.seq
            self._lanes[number].put(event, suspect)
            if alone:
                self._wait_for_lanes(0)
        self._suspects -= suspect

    def _wait_for_lanes(self, most: int) -> None:
        """Wait until no more than so many changes are handed out, and not too large ones. With the
        condition."""
        while not self._stopping.is_set():
            if self._water.open <= most and self._bytes < self._most_bytes:
                return
            self._news.wait()

    def failed(self, error: BaseException) -> None:
        """A lane has ended: the handler ends. From the lane."""
        with self._news:
            if self._failure is None:
                self._failure = error
        self.stop()
        for lane in self._lanes:
            lane.wake()

    # --- progress of its units --------------------------------------------------------------------

    def record(self, unit: Unit, count: int) -> None:
        cursors.mark_done(self.lease, [event.seq for event in unit.events], count)

    def is_recorded(self, unit: Unit) -> bool:
        cursors.load(self.lease)
        return cursors.is_marked(self.lease, unit.first)

    def passed(self, unit: Unit) -> None:
        with self._news:
            for event in unit.events:
                self._water.done(event.seq)
                self._bytes -= event.size
            self._news.notify_all()


class _Lane:
    """A thread that handles the changes of some keys."""

    def __init__(self, handler: ByKey, units: UnitHandler, number: int) -> None:
        self.units = units
        self._handler = handler
        self._batch = handler.matcher.definition.batch
        self._waiting: deque[DatabaseEvent] = deque()
        self._suspect = False
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(
            target=self._run, name=f"rowcast-{handler.lease.name}-{number}", daemon=True
        )

    def start(self, row: Handler) -> None:
        self.units.remember(row)
        self._thread.start()

    def put(self, event: DatabaseEvent, suspect: bool) -> None:
        """Have a change handled, a suspect while nothing else waits."""
        with self._changed:
            self._waiting.append(event)
            self._suspect = suspect
            self._changed.notify()

    def wake(self) -> None:
        """Let it notice that the handler stops."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self) -> None:
        """Wait for the end of what it does, unless that was given up."""
        self.wake()
        while self._thread.is_alive() and not self.units.overdue:
            self._thread.join(0.1)

    def _run(self) -> None:
        try:
            while unit := self._take():
                self.units.handle(unit)
        except BaseException as error:
            self._handler.failed(error)
        finally:
            connections.close_all()

    def _take(self) -> Unit | None:
        """What waits, up to a batch; None when the handler stops."""
        with self._changed:
            while not self._waiting and not self._stopping:
                if not self._changed.wait(IDLE_SECONDS):
                    connections.close_all()
            if self._stopping:
                return None
            events: list[DatabaseEvent] = []
            size = 0
            while self._waiting and len(events) < self._batch and size < MOST_BYTES:
                events.append(self._waiting.popleft())
                size += events[-1].size
            suspect = self._suspect
        return Unit(tuple(events), events[-1].seq, suspect)
