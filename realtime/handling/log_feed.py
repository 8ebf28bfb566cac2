"""The log as the handlers of a process read it: the newest events from memory, read once for all,
older ones by each handler for itself.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque

from django.db import connections

from realtime.event_log.event import DatabaseEvent
from realtime.event_log.table import BATCH, oldest_seq, read_rows, relations
from realtime.wal.head import Head

_MOST_EVENTS = 5_000
_MOST_BYTES = 16 * 1024 * 1024


class ChangesLost(Exception):
    """Changes that are to be read are not kept any more; `first` is the lowest seq that is."""

    def __init__(self, after: int, first: int | None) -> None:
        kept = "none is" if first is None else f"those from {first} on are"
        super().__init__(
            f"the changes after {after} were pruned before this handler had read them; {kept} kept."
            " `manage.py handlers resume` goes on with what is kept, `replay --from` elsewhere"
        )
        self.first = first


class LogFeed:
    """Events of the log of one database, for the threads of one process."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._lock = threading.Lock()
        self._recent: deque[DatabaseEvent] = deque()
        self._bytes = 0
        self._head: Head | None = None

    @property
    def head(self) -> Head | None:
        """The head of the log at the last look; None before the first one."""
        return self._head

    def look(self, head: Head) -> list[DatabaseEvent] | None:
        """The head is here now. Returns the events since the last look, which are in memory now;
        None if that would be many, and in a new epoch. Raises what the database raises."""
        last = self._head
        if last is not None and last.epoch == head.epoch:
            if head.seq == last.seq:
                return []
            if 0 < head.seq - last.seq <= BATCH:
                events = self._read(last.seq, head.seq)
                if events and events[-1].seq == head.seq:
                    self._keep(events)
                    self._head = head
                    return events
        with self._lock:
            self._recent.clear()
            self._bytes = 0
        self._head = head
        return None

    def read(self, after: int) -> list[DatabaseEvent]:
        """Some events after this seq, in order and without a gap; none at the head.

        Raises ChangesLost, and what the database raises. In a database thread.
        """
        head = self._head
        if head is None or after >= head.seq:
            return []
        with self._lock:
            if self._recent and self._recent[0].seq <= after + 1 <= self._recent[-1].seq:
                first = after + 1 - self._recent[0].seq
                return list(itertools.islice(self._recent, first, first + BATCH))
        events = self._read(after, head.seq)
        if not events or events[0].seq != after + 1:
            raise ChangesLost(after, oldest_seq(connections[self._alias]))
        return events

    def _read(self, after: int, upto: int) -> list[DatabaseEvent]:
        return relations.events(read_rows(self._alias, after, upto))

    def _keep(self, events: list[DatabaseEvent]) -> None:
        with self._lock:
            self._recent.extend(events)
            self._bytes += sum(event.size for event in events)
            while self._recent and (len(self._recent) > _MOST_EVENTS or self._bytes > _MOST_BYTES):
                self._bytes -= self._recent.popleft().size
