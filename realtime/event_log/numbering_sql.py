"""The statements that number the log, as text, for both vendors. Executed by `sequencer` only."""

from __future__ import annotations

# How long PostgreSQL waits for a sequencer that stands still while it holds the head row (stopped,
# swapped out, cut off) before it ends its session, so that a standby can lead.
_STANDSTILL_MS = 2_000

# commit_us is the running maximum of (capture time - place), plus the place: never before its
# capture time, and strictly rising even when a clock steps back.
# The WITH stands inside: Python's sqlite3 counts rows only for a statement that begins with UPDATE.
NUMBER = """
UPDATE realtime_wal
SET seq = %s + numbered.place,
    commit_us = numbered.place + CASE WHEN numbered.lead_us > %s THEN numbered.lead_us ELSE %s END
FROM (
    {placed}
    SELECT id, place,
           MAX(captured_us - place) OVER (ORDER BY place ROWS UNBOUNDED PRECEDING) AS lead_us
    FROM placed
) AS numbered
WHERE realtime_wal.id = numbered.id
"""

# A transaction is taken whole or not at all: it is if its first place is within the batch. So a
# batch ends between transactions. No part is joined with another: how many entries wait is not
# what the planner believes, and it would choose loops in loops.
PLACED = """
WITH backlog AS (
    SELECT id, captured_us, tx, MAX(id) OVER (PARTITION BY tx) AS last_id FROM ({backlog}) AS b
), ranked AS (
    SELECT id, captured_us, tx, ROW_NUMBER() OVER (ORDER BY last_id, id) AS place FROM backlog
), whole AS (
    SELECT id, captured_us, place, MIN(place) OVER (PARTITION BY tx) AS first_place FROM ranked
), placed AS (
    SELECT id, captured_us, place FROM whole WHERE first_place <= %s
)
"""
COLUMNS = "w.id, w.captured_us, COALESCE(w.txid, -w.id) AS tx"

# Writers are serialised on SQLite: ids are commit order, and no transaction is inside another.
PLACED_SQLITE = """
WITH backlog AS (
    SELECT id, captured_us FROM realtime_wal WHERE seq IS NULL ORDER BY txid, id LIMIT %s
), placed AS (
    SELECT id, captured_us, ROW_NUMBER() OVER (ORDER BY id) AS place FROM backlog
)
"""

# The head stands still if an entry was deleted between the snapshot and its update: a gap.
ADVANCE = """
UPDATE realtime_head
SET seq = seq + %s, lease_until_us = {lease},
    commit_us = (SELECT w.commit_us FROM realtime_wal AS w WHERE w.seq = realtime_head.seq + %s)
WHERE id = 1{mine} AND (SELECT MAX(seq) FROM realtime_wal) = seq + %s
"""
MINE = " AND term = %s AND leader = %s"

LOCK = f"""
SELECT seq, commit_us, {{snapshot}} FROM realtime_head
WHERE id = 1{{mine}}
  AND set_config('idle_in_transaction_session_timeout', '{_STANDSTILL_MS}', true) IS NOT NULL
FOR UPDATE
"""

LOOK = """
SELECT epoch, seq, commit_us, term, leader, lease_until_us - {now}, {snapshot}, {waiting}
FROM realtime_head WHERE id = 1
"""
