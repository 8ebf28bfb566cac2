"""From where a client that was here before may be served: where its cursor lies, and whether what
it holds still counts.

Answers for one binding at a time. What follows from the answers is the replay's to know.
"""

from __future__ import annotations

from typing import Protocol

from realtime.protocol.cursor import Cursor
from realtime.protocol.join import Binding
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.context import ReplayContext
from realtime.subscriptions.request import Request
from realtime.util.database_threads import in_database_thread

# Another server may have shown the client what this one is about to hear.
_BEHIND_SECONDS = 5.0


class Traveller(Protocol):
    """What is asked for and what it gets; both may be replaced on the way."""

    request: Request
    plan: Plan


async def resolve_cursor(cursor: Cursor, epoch: str, means: ReplayContext) -> int | None:
    """The seq after which a client with this cursor is to be served, if the log of this epoch
    still tells it all, and may."""
    log = means.log
    if cursor.epoch is not None and cursor.epoch != log.epoch:
        return None
    seq = cursor.seq
    if seq is None and cursor.commit_us is not None:
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
    limit = means.replay_events
    if limit is not None and log.seq - seq > limit:
        means.counters.limits["replay_events/channel"] += 1
        return None
    return seq


async def access_changed_since(
    who: Traveller, binding: Binding, after: int, means: ReplayContext
) -> bool:
    """Whether what the subject may see has perhaps changed since the client was here."""
    while True:
        plan, subject = who.plan, who.request.subject
        mine = [item for item in plan.subscriptions if item.id == binding.id]
        concern = await in_database_thread(
            lambda: means.planners.get().concern(subject, mine)  # noqa: B023
        )
        # What changed at the cursor itself may have reached the client in part.
        try:
            since = await means.reader.on_tables(concern.tables, max(after - 1, 0))
        except OverflowError:
            return True
        if who.plan is plan:
            return concern.touched_by(since)
