"""What the setting RETENTION keeps of the log: up to an age, up to a size, or what both keep."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.backends.base.base import BaseDatabaseWrapper

from realtime import conf
from realtime.event_log.size import beyond_size
from realtime.event_log.table import seq_at
from realtime.wal import clock

GIGABYTE = 10**9
# Whole partitions go at once. Entries whose partition is not whole beyond retention may stay so
# much longer, as a share of it, before they are deleted one by one.
_PATIENCE = 1 / 8


@dataclass(frozen=True, slots=True)
class Retention:
    """Entries older than `age` go, and the oldest ones while all take more than `size` bytes. None:
    as many as there are."""

    age: timedelta | None = None
    size: int | None = None

    @property
    def with_patience(self) -> Retention:
        """What is kept of entries whose partition is still in use."""
        age = None if self.age is None else self.age * (1 + _PATIENCE)
        size = None if self.size is None else int(self.size * (1 + _PATIENCE))
        return Retention(age, size)

    def last_beyond(self, connection: BaseDatabaseWrapper) -> int | None:
        """The last seq that is not kept; None if every one is. In a database thread."""
        found = []
        if self.age is not None:
            before_us = clock.now_us(connection) - self.age // timedelta(microseconds=1)
            found.append(seq_at(connection, before_us))
        if self.size is not None:
            found.append(beyond_size(connection, self.size))
        return max((seq for seq in found if seq is not None), default=None)


def configured() -> Retention:
    """The RETENTION setting."""
    given = dict(conf.current().RETENTION)
    gigabytes = given.pop("gigabytes", None)
    return Retention(
        timedelta(**given) if given else None,
        None if gigabytes is None else int(gigabytes * GIGABYTE),
    )
