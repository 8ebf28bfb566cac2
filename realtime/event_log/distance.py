"""How many changes lie between two positions, without those that any client can cause.

Presence and stored broadcasts are in the log beside the changes of the project's tables. They do
not count, so that a flood of them puts no cursor out of reach. Numbered entries never change, so
whole blocks are counted once.
"""

from __future__ import annotations

from collections import OrderedDict

from django.db import connections

from realtime.models import Message, PresenceMember
from realtime.util.database_threads import in_database_thread

_BLOCK = 1_000
_BLOCKS_KEPT = 10_000
_NOT_COUNTED = (PresenceMember._meta.db_table, Message._meta.db_table)
_COUNT = """
SELECT n.seq / %s AS block, COUNT(*)
FROM realtime_wal_number AS n JOIN realtime_wal AS w ON w.id = n.entry_id
WHERE n.seq > %s AND n.seq <= %s AND w.relation_id NOT IN (
    SELECT r.id FROM realtime_wal_relation AS r WHERE r.table_name IN (%s, %s)
) GROUP BY 1
"""


class Distances:
    """The counts of one process. On one event loop."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._epoch = ""
        self._counts: OrderedDict[int, int] = OrderedDict()

    async def count(self, epoch: str, after: int, upto: int) -> int:
        """The kept changes with after < seq <= upto. Raises what the database raises."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._counts.clear()
        whole = range(after // _BLOCK + 1, upto // _BLOCK)
        unknown = [block for block in whole if block not in self._counts]
        # The parts of blocks at both ends, and the whole blocks between that were not counted yet.
        ranges = [(after, upto)]
        if len(whole) > 1:
            ranges = [(after, whole[0] * _BLOCK - 1), (whole[-1] * _BLOCK + _BLOCK - 1, upto)]
            if unknown:
                ranges.append((unknown[0] * _BLOCK - 1, unknown[-1] * _BLOCK + _BLOCK - 1))
        found = await in_database_thread(_count, self._alias, ranges)
        if len(whole) <= 1:
            return sum(found[0].values())
        between = {block: self._counts.get(block, 0) for block in whole}
        if unknown:
            between |= {block: found[2].get(block, 0) for block in unknown}
        if epoch == self._epoch:
            self._counts |= between
            while len(self._counts) > _BLOCKS_KEPT:
                self._counts.popitem(last=False)
        return sum(found[0].values()) + sum(found[1].values()) + sum(between.values())


def _count(alias: str, ranges: list[tuple[int, int]]) -> list[dict[int, int]]:
    found = []
    with connections[alias].cursor() as cursor:
        for after, upto in ranges:
            cursor.execute(_COUNT, [_BLOCK, after, upto, *_NOT_COUNTED])
            found.append({int(block): int(count) for block, count in cursor.fetchall()})
    return found
