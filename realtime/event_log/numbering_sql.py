"""The statements that number the log, as text with placeholders for the parts of each vendor
(`realtime.wal.vendor.Numbering`). Executed by `sequencer` only."""

from __future__ import annotations

# commit_us is the running maximum of (capture time - rank), plus the rank: never before its
# capture time, and strictly rising even when a clock steps back.
# The WITH stands inside: Python's sqlite3 counts rows only for a statement that begins with UPDATE.
NUMBER = """
UPDATE realtime_wal
SET seq = %s + numbered.rank,
    commit_us = numbered.rank + CASE WHEN numbered.lead_us > %s THEN numbered.lead_us ELSE %s END
FROM (
    {ranked}
    SELECT id, rank,
           MAX(captured_us - rank) OVER (ORDER BY rank ROWS UNBOUNDED PRECEDING) AS lead_us
    FROM ranked
) AS numbered
WHERE realtime_wal.id = numbered.id
"""

# The head stands still if an entry was deleted between the snapshot and its update: a gap.
ADVANCE = """
UPDATE realtime_head
SET seq = seq + %s, lease_until_us = {lease}, stamp = {stamp},
    commit_us = (SELECT w.commit_us FROM realtime_wal AS w WHERE w.seq = realtime_head.seq + %s)
WHERE id = 1{mine} AND (SELECT MAX(seq) FROM realtime_wal) = seq + %s
"""
MINE = " AND term = %s AND leader = %s"

LOOK = """
SELECT epoch, seq, commit_us, epoch_us, term, leader, lease_until_us - {now}, {snapshot}, {waiting},
    stamp, {writer}
FROM realtime_head WHERE id = 1
"""
