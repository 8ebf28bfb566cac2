"""Notices that committed changes wait and no process numbers them, and logs it once.

Without a tailer nothing is delivered, although the database and the sockets work, and no other part
would report it. Changes nothing.
"""

from __future__ import annotations

import logging

from django.db import connections

from realtime.event_log.sequencer import Head, Sequencer
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread
from realtime.util.outage_log import OutageLog

logger = logging.getLogger("realtime.processes")

# Reported after so many looks, one at each renewal of the process row, at which changes wait and
# the head has not moved.
_LOOKS = 3
_HINT = "Changes wait and no process numbers them: nothing arrives before one does (`tail_wal`)."


class NumberingMonitor:
    """One per server process."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._sequencer = Sequencer()
        self._head: Head | None = None
        self._looks = 0
        self._outage = OutageLog(
            logger,
            failing="changes wait and %s: start manage.py tail_wal, or set REALTIME['TAILER'] to "
            "'embedded'",
            failing_action="nobody_numbers",
            works="changes are numbered again",
            works_action="numbering_works",
        )

    @property
    def hint(self) -> str | None:
        """What a client is told that joins meanwhile; None while changes are numbered."""
        return _HINT if self._outage.problem is not None else None

    async def look(self) -> None:
        """Look once. A failure of the database is logged elsewhere."""
        try:
            found = await in_database_thread(lambda: self._sequencer.look(connections[self._alias]))
        except DATABASE_ERRORS:
            return
        if not found.waiting or found.head != self._head:
            self._head, self._looks = found.head, 0
            if not found.waiting:
                self._outage.worked()
            return
        self._looks += 1
        if self._looks >= _LOOKS:
            self._outage.failed(LookupError("no process numbers them"))
