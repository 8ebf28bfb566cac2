"""About how much of the log is on disk from each seq on, by samples.

An entry is as large as its row images, and rows differ. So some entries are measured, evenly over
the log, and each stands for those around it. What deleting leaves free in files does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.vendor import vendor_of

_SAMPLES = 400


def beyond_size(connection: BaseDatabaseWrapper, most: int) -> int | None:
    """The last seq that goes, so that what is kept after it takes about `most` bytes; None if all
    of it does not take more. In a database thread; raises what the database raises."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT MIN(seq), MAX(seq) FROM realtime_wal_number")
        first, last = cursor.fetchone()
        if first is None:
            return None
        seqs = positions(first, last)
        marks = ", ".join(["%s"] * len(seqs))
        cursor.execute(
            f"SELECT n.seq, {vendor_of(connection).entry_bytes} FROM realtime_wal_number AS n"
            f" JOIN realtime_wal AS w ON w.id = n.entry_id WHERE n.seq IN ({marks}) ORDER BY n.seq",
            seqs,
        )
        found = [(int(seq), int(size)) for seq, size in cursor.fetchall()]
    return last_beyond(found, first, last, most)


def positions(first: int, last: int, count: int = _SAMPLES) -> list[int]:
    """At most `count` numbers from first to last, evenly spaced."""
    length = last - first + 1
    count = min(count, length)
    return [first + (2 * index + 1) * length // (2 * count) for index in range(count)]


def last_beyond(samples: Sequence[tuple[int, int]], first: int, last: int, most: int) -> int | None:
    """The last seq of first..last that goes, so that what is kept after it takes `most` bytes at
    most. `samples` are entries by seq, with their bytes; None if none has to go."""
    upper = last
    left = float(most)
    for index in range(len(samples) - 1, -1, -1):
        seq, size = samples[index]
        # The sample stands for the entries from half-way to its neighbours.
        lower = first if index == 0 else (samples[index - 1][0] + seq) // 2 + 1
        count = upper - lower + 1
        if size * count > left:
            return upper - int(left // size)
        left -= size * count
        upper = lower - 1
    return None
