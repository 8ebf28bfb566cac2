"""What the thread of every handler does: follow the log from a position on."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection

from django.db import connections

from realtime.event_log.event import DatabaseEvent
from realtime.handling import cursors
from realtime.handling.cursors import Lease
from realtime.handling.log_feed import LogFeed
from realtime.handling.matching import Matcher
from realtime.handling.unit_handler import log_failure
from realtime.models import Handler

# Idle so long, a thread gives its connection back.
IDLE_SECONDS = 10.0
_ENDED = (
    "the process ended, or was cut off, in the middle of it: it was killed, ran out of memory or"
    " was ended by the function itself"
)


class HandlerThread(ABC):
    """One handler under one lease. `run` is the body of its thread; the other methods are called
    from the runner's threads."""

    def __init__(
        self, lease: Lease, matcher: Matcher, feed: LogFeed, epoch: str, most_begun: int
    ) -> None:
        """`most_begun`: how many changes are begun and not done at most."""
        self.lease = lease
        self.matcher = matcher
        self._definition = matcher.definition
        # So many of the next changes may have ended the process of the runner before.
        self._suspects = most_begun if lease.orphaned else 0
        self._feed = feed
        self._epoch = epoch
        self._ahead: deque[DatabaseEvent] = deque()
        # Changes behind the cursor that were skipped, or done out of order.
        self._done: set[int] = set()
        self._news = threading.Condition()
        # Everything up to here was read; guarded by the condition.
        self._read_upto = -1
        self._idle = False
        self._stopping = threading.Event()

    # --- from the runner --------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()
        self.wake()

    def wake(self) -> None:
        """The log has gone on."""
        with self._news:
            self._news.notify_all()

    def offer(self, after: int, upto: int, tables: Collection[tuple[str, str]]) -> None:
        """The log has gone on from `after` to `upto`, with changes of these tables."""
        with self._news:
            if self._idle and self._read_upto == after and self.matcher.tables.isdisjoint(tables):
                self._read(upto)
            else:
                self._news.notify_all()

    @abstractmethod
    def save(self) -> None:
        """Write how far the handler has come, where its attempts have not. Raises Fenced, and what
        the database raises."""

    @abstractmethod
    def give_up_if_overdue(self) -> None:
        """Give up an attempt whose time is over. Makes no query."""

    @property
    @abstractmethod
    def overdue(self) -> bool:
        """Whether an attempt was given up so. Its thread is to be left to itself."""

    @abstractmethod
    def count_overdue(self) -> None:
        """Count that attempt as failed. Raises Fenced, and what the database raises."""

    @abstractmethod
    def give_up(self) -> None:
        """Let nothing of what runs be committed."""

    # --- its thread -------------------------------------------------------------------------------

    @abstractmethod
    def run(self) -> None:
        """Handle changes until stopped. Raises Fenced, GivenUp, ChangesLost, and what the database
        raises."""

    def _load(self) -> Handler:
        """The row. The attempt in which the process of the runner before ended, if it was one at a
        suspect, is counted there. Raises Fenced, and what the database raises."""
        row = cursors.load(self.lease)
        if row.tried_seq is None:
            return row
        if row.failed_seq == row.tried_seq:
            attempts = row.attempts + 1
        else:
            # Once it may be the fault of a change that another handler got at that moment.
            attempts = min(1, self._definition.attempts - 1)
        cursors.failed(self.lease, row.tried_seq, attempts, _ENDED)
        log_failure(row.name, row.tried_seq, attempts, _ENDED)
        return cursors.load(self.lease)

    @abstractmethod
    def _read(self, upto: int) -> None:
        """Nothing up to this seq concerns the handler that it has not read. With the condition."""

    def _next(self, after: int) -> DatabaseEvent | None:
        """The event after this seq; None at the head. Raises ChangesLost."""
        while True:
            if not self._ahead:
                self._ahead.extend(self._feed.read(after))
                if not self._ahead:
                    return None
            event = self._ahead.popleft()
            if event.seq > after:
                return event

    def _concerns(self, event: DatabaseEvent) -> bool:
        return self.matcher.matches(event) and event.seq not in self._done

    def _wait(self) -> None:
        """Wait until there is something to read, or the thread is to stop."""
        with self._news:
            self._idle = True
            while not self._stopping.is_set() and not self._behind():
                if not self._news.wait(IDLE_SECONDS):
                    connections.close_all()
            self._idle = False

    def _behind(self) -> bool:
        head = self._feed.head
        return head is not None and self._read_upto < head.seq
