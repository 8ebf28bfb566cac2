"""Where a client that was here before may be served from: the position of its cursor, and whether
what it holds still counts.

Answers for one binding at a time. The replay decides what follows from the answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from auth_rls.subjects.subject import Subject
from realtime.protocol.cursor import Cursor
from realtime.subscriptions.index import Subscription
from realtime.subscriptions.replay.context import ReplayContext
from realtime.util.database_threads import in_database_thread

# Another server may have delivered to the client what this one has not read yet.
_BEHIND_SECONDS = 5.0
# Entries of presence and stored broadcasts that one replay may pass.
_MOST_OTHERS = 1_000_000
# Changes compared with what a verdict depends on without leaving the event loop.
_TOUCHED_AT_ONCE = 200


async def resolve_cursor(cursor: Cursor, epoch: str, means: ReplayContext) -> int | None:
    """The seq after which a client with this cursor is to be served. None if the log of this epoch
    does not reach back so far, or if that would be more events than one replay may read."""
    log = means.log
    if cursor.epoch is not None and cursor.epoch != log.epoch:
        return None
    seq = cursor.seq
    if seq is None and cursor.commit_us is not None:
        if cursor.commit_us <= log.epoch_us:
            # Of an older epoch: what followed it then is not what follows it now.
            return None
        seq = await means.reader.seq_at(cursor.commit_us)
    if seq is None:
        return None
    if seq > log.seq:
        head = await means.reader.head()
        if head.epoch != log.epoch or head.seq < seq:
            return None
        if not await log.beyond(seq - 1, _BEHIND_SECONDS):
            return None
    if log.epoch != epoch:
        return None
    if await _too_far(seq, means):
        means.counters.limits["replay_events/channel"] += 1
        return None
    # All of it, or nothing: a client that was sent a part could not tell what is missing.
    if not await means.reader.keeps(seq):
        return None
    return seq if log.epoch == epoch else None


async def _too_far(seq: int, means: ReplayContext) -> bool:
    """Whether more changes came since than a replay may read. Presence and stored broadcasts do
    not count, or clients that cause them could put every cursor out of reach."""
    limit, upto = means.bounds.events, means.log.seq
    if limit is None or upto - seq <= limit:
        return False
    if upto - seq > limit + _MOST_OTHERS:
        return True
    return await means.reader.distance(seq, upto) > limit


async def access_changed_since(
    subject: Subject, subscriptions: Sequence[Subscription], after: int, means: ReplayContext
) -> bool:
    """Whether what the subject may see by these subscriptions may have changed since this seq.

    Raises what the database raises.
    """
    concern = await in_database_thread(lambda: means.planners.get().concern(subject, subscriptions))
    # What changed at the cursor itself may have reached the client in part.
    try:
        since = await means.reader.on_tables(concern.tables, max(after - 1, 0))
    except OverflowError:
        return True
    if len(since) <= _TOUCHED_AT_ONCE:
        return concern.touched_by(since)
    return await in_database_thread(concern.touched_by, since)
