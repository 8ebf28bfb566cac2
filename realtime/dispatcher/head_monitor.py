"""Compares the position of this process with the head of the log, about once a second.

Finds what no later batch would show: the last batch was lost, the channel layer is down, or the log
has lost its newest entries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from django.db import connections

from realtime.bus.bus import Bus
from realtime.event_log.position import Position
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.util.counters import Counters
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread
from realtime.util.outage_log import OutageLog
from realtime.wal.head import Head, renew_epoch

logger = logging.getLogger("realtime.dispatcher")


@dataclass(frozen=True, slots=True)
class MonitorTiming:
    """Seconds between two comparisons."""

    fed: float = 1.0
    #: While the bus brings nothing, so that only the comparisons bring events.
    alone: float = 0.25


class HeadMonitor:
    """One per dispatcher. `behind` is called with the head when this process is behind it.

    `outage` is shared with the dispatcher, which reads the same log.
    """

    def __init__(
        self,
        log: EventLog,
        reader: LogReader,
        behind: Callable[[Head], None],
        outage: OutageLog,
        counters: Counters,
        timing: MonitorTiming,
    ) -> None:
        self._log = log
        self._reader = reader
        self._behind = behind
        self._outage = outage
        self._counters = counters
        #: May be replaced while the monitor runs.
        self.timing = timing
        #: The bus that feeds this process; None where events are handed over directly.
        self.bus: Bus | None = None

    async def run(self) -> None:
        """Compare until cancelled."""
        before = self._log.position
        while True:
            await asyncio.sleep(self.timing.fed if self._fed else self.timing.alone)
            try:
                head = await self._head()
            except DATABASE_ERRORS as error:
                self._outage.failed(error)
                continue
            except Exception:
                logger.exception(
                    "the comparison with the head failed", extra={"action": "watch_failed"}
                )
                continue
            now = self._log.position
            # Where the bus feeds us, a batch may be on its way: only standing still is a fault.
            if _beyond(head, now) and (now == before or not self._fed):
                if self.bus is not None and self._fed:
                    self.bus.check_soon()
                self._behind(head)
            before = now

    @property
    def _fed(self) -> bool:
        return self.bus is None or self.bus.healthy

    async def _head(self) -> Head:
        seen = self._log.position
        head = await self._reader.head()
        self._counters.watch_reads += 1
        if head.epoch != seen.epoch or head.seq >= seen.seq:
            return head
        # Delivered events are not in the log any more: a backup was restored, or a standby that
        # lacked them took over. Their numbers will be given again, to other changes.
        lost = Head(seen.epoch, seen.seq)
        return await in_database_thread(lambda: renew_epoch(connections[self._reader.alias], lost))


def _beyond(head: Head, position: Position) -> bool:
    return head.epoch != position.epoch or head.seq > position.seq
