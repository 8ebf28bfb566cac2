"""How a stream of changes ends before its consumer ends it."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied


class ResyncRequired(Exception):
    """Changes after the last one cannot be given: the log was pruned past them or began a new
    epoch, the table was emptied by TRUNCATE, or what decides about them is not known.

    `head` is the position "<epoch>:<seq>" at which that was noticed: read the rows anew, and go on
    with `since=error.head`, or begin again with `snapshot=True`.
    """

    def __init__(self, table: str, head: str) -> None:
        super().__init__(
            f"resync required: changes of {table} before {head} cannot be given any more. Read its "
            f"rows anew and go on with since={head!r}, or begin again with snapshot=True"
        )
        self.head = head


class AccessRevoked(PermissionDenied):
    """The subject may not follow the table any more: its user was deactivated, deleted or
    disconnected, its token is refused or has expired, or no policy shows it rows of the table.

    What the consumer has of the table is to be dropped.
    """


class SubscriptionEnded(Exception):
    """Nothing comes of the table any more: it was dropped or lost its triggers, or the filter costs
    too much on its rows. The text says which."""


class SnapshotTruncated(Exception):
    """The snapshot has more rows than one may have: LIMITS["snapshot_rows"] in a server process,
    64 MB in any. Those that came are not all rows."""
