"""The statements that number the log, as text with placeholders for the parts of each vendor
(`realtime.wal.vendor.Numbering`). Executed by `sequencer` only."""

from __future__ import annotations

# commit_us is the running maximum of (capture time - rank), plus the rank: never before its
# capture time, and strictly rising even when a clock steps back.
# The WITH stands inside: Python's sqlite3 counts rows only for a statement that begins with INSERT.
NUMBER = """
INSERT INTO realtime_wal_number (seq, entry_id, commit_us)
{ranked}
SELECT %s + rank, id, rank + CASE WHEN lead_us > %s THEN lead_us ELSE %s END
FROM (
    SELECT id, rank,
           MAX(captured_us - rank) OVER (ORDER BY rank ROWS UNBOUNDED PRECEDING) AS lead_us
    FROM ranked
) AS numbered
ORDER BY rank
"""

# The head stands still if an entry, and with it its number, was deleted since: a gap. A snapshot
# that was not taken leaves the one before, which is good for ever.
ADVANCE = """
UPDATE realtime_head
SET seq = seq + %s, lease_until_us = {lease}, stamp = {stamp},
    seen = CASE WHEN %s THEN seen ELSE %s END,
    commit_us = (
        SELECT n.commit_us FROM realtime_wal_number AS n WHERE n.seq = realtime_head.seq + %s
    )
WHERE id = 1{mine}
  AND (SELECT COUNT(*) FROM realtime_wal_number AS n WHERE n.seq > realtime_head.seq) = %s
"""
MINE = " AND term = %s AND leader = %s"

LOOK = """
SELECT epoch, seq, commit_us, epoch_us, term, leader, lease_until_us - {now}, {snapshot}, {waiting},
    EXISTS (SELECT 1 FROM realtime_passing), stamp, {writer}, seen
FROM realtime_head WHERE id = 1
"""
