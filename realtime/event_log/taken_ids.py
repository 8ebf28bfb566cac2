"""Ids of the log's table that are taken and would be drawn again.

Restored data can bring the sequence back behind the ids that are there: each write to a published
table then fails, in every process. No write tells the servers, so the tailer looks now and then.
"""

from __future__ import annotations

import logging
import time

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError

from realtime.util.outage_log import OutageLog
from realtime.wal.vendor import vendor_of

logger = logging.getLogger("realtime.tailer")

_LOOK_SECONDS = 10.0


class TakenIds:
    """Looks at once, and then every ten seconds."""

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._outage = OutageLog(
            logger,
            failing="ids of the log that are taken cannot be passed over: %s",
            failing_action="ids_taken",
            works="the ids of the log can be looked at again",
            works_action="ids_work",
        )

    def look(self, connection: BaseDatabaseWrapper) -> bool:
        """Have new entries get free ids, if it is time to look; whether it was. Outside of a
        transaction; a role that may not do so is logged once."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return False
        self._looked_at = now
        vendor = vendor_of(connection)
        try:
            if vendor.ids_behind(connection):
                vendor.pass_taken_ids(connection)
                logger.warning(
                    "new entries would have got ids that are taken, as after a restore: writes to "
                    "published tables failed until now",
                    extra={"action": "ids_passed"},
                )
        except DatabaseError as error:
            self._outage.failed(error)
        else:
            self._outage.worked()
        return True
