"""What the log keeps for handlers that have yet to read it, and for how long."""

from __future__ import annotations

from datetime import timedelta

from django.db import connections
from django.db.models import Min

from realtime.event_log.table import seq_at
from realtime.models import Handler, WalNumber
from realtime.wal.clock import now_us
from realtime.wal.head import find_head

HELD_FOR = timedelta(days=7)
"""Changes older than this are kept for no handler, whether it runs, stands or is no more."""

MOST_HELD = 10_000_000
"""Nor are those with so many newer ones."""


def lowest_needed(alias: str, most: int = MOST_HELD) -> int | None:
    """The lowest seq that is kept because a handler has yet to read it, among the newest `most`;
    None if there is none. In a database thread."""
    connection = connections[alias]
    # One that has lost changes begins with what is kept when it is resumed.
    rows = Handler.objects.using(alias).exclude(stopped=Handler.Stopped.LOST)
    lowest = rows.aggregate(lowest=Min("seq"))["lowest"]
    head = find_head(connection)
    if lowest is None or head is None or lowest >= head.seq:
        return None
    needed = max(int(lowest) + 1, head.seq - most + 1)
    limit_us = now_us(connection) - HELD_FOR // timedelta(microseconds=1)
    numbers = WalNumber.objects.using(alias).filter(seq__gte=needed).order_by("seq")
    for commit_us in numbers.values_list("commit_us", flat=True)[:1]:
        if commit_us <= limit_us:
            needed = max(needed, (seq_at(connection, limit_us) or 0) + 1)
    return needed
