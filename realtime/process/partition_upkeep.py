"""Has the partitions of the log made before they are needed, and says so where that fails.

Runs in a database thread, in the process that leads, and whenever somebody prunes.
"""

from __future__ import annotations

import logging

from django.db import DatabaseError, connections

from realtime.util.outage_log import OutageLog
from realtime.wal.partitions import Busy
from realtime.wal.vendor import vendor_of

logger = logging.getLogger("realtime.upkeep")


class PartitionUpkeep:
    """The partitions of the log of one database, as far as they are made here."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._strays = False
        self._outage = OutageLog(
            logger,
            failing="the next partition of the log cannot be made: %s",
            failing_action="partition_failed",
            works="the partitions of the log are made again",
            works_action="partition_works",
        )

    def look(self) -> None:
        """Make what is missing. Failures are logged once, for the next look tries again, and so is
        that the role may not; a database that is gone raises what it raises."""
        connection = connections[self._alias]
        connection.ensure_connection()
        partitions = vendor_of(connection).partitions(connection)
        if partitions is None:
            return
        if reason := partitions.not_ours():
            self._outage.failed(PermissionError(reason))
            return
        try:
            partitions.make_missing()
        except (Busy, DatabaseError) as error:
            self._outage.failed(error)
        else:
            self._outage.worked()
        strays = partitions.strays(1) > 0
        if strays and not self._strays:
            logger.warning(
                "changes came before their partition of the log was made: they are in its default "
                "partition, and pruning deletes them one by one",
                extra={"action": "partition_late"},
            )
        self._strays = strays
