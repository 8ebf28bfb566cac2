"""What a replay puts before its port: events of the log, and rows that were read.

Owns how they are matched and framed, and how long a client is waited for that takes no rows. Where
the replay stands it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from auth_rls.predicates.predicate import columns
from realtime.event_log.event import DatabaseEvent
from realtime.subscriptions import frames
from realtime.subscriptions.index import AudienceKey, Subscription, SubscriptionIndex
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.context import ReplayContext
from realtime.subscriptions.replay.snapshot import Place, RowAt
from realtime.subscriptions.subscriber import Subscriber

# About as many bytes of frames between two looks at whether the client keeps up.
_CHUNK_BYTES = 256 * 1024
# Rows already read do not wait for ever for a client to take them.
_PATIENCE_SECONDS = 30.0


class HistoryLost(Exception):
    """The way from here to the head is not known any more."""


class Feed:
    """One per replay."""

    def __init__(self, port: Subscriber, means: ReplayContext) -> None:
        self._port = port
        self._sets = means.sets
        self._on_failure = means.on_failure
        self._counters = means.counters
        self._matching: tuple[object, SubscriptionIndex[Subscriber]] | None = None
        # Whether an entry of a relation shows what decides about a live set.
        self._telling: dict[tuple[Place, str], bool] = {}

    def events(self, events: Sequence[DatabaseEvent], plan: Plan, begun: frozenset[int]) -> int:
        """Deliver what the bindings that have begun get of these by a plan, up to about as much as
        a client is sent at once. Returns the seq that was reached; raises Lost."""
        key = (plan.subscriptions, begun, self._sets.values(plan.row_selects))
        if self._matching is None or self._matching[0] != key:
            manager: SubscriptionIndex[Subscriber] = SubscriptionIndex(self._on_failure)
            mine = tuple(
                replace(item, rls=self._sets.resolve(item.rls))
                for item in plan.subscriptions
                if item.id in begun
            )
            manager.set(self._port, AudienceKey(self._port.topic, self._port.version.value, mine))
            self._matching = key, manager
            self._telling.clear()
        matching = self._matching[1]
        size = 0
        for event in events:
            relation = event.relation
            if matching.on_table(relation.schema, relation.table):
                if event.old is None and event.new is None:
                    raise HistoryLost(f"{event.op} of {relation.table}")
                self._check_tells(event, plan, begun)
                for delivery in matching.match(event):
                    frame = frames.of_change(event, delivery)
                    self._port.outlet.put(frame)
                    self._counters.sent(1, len(frame))
                    size += len(frame)
            if size > _CHUNK_BYTES:
                return event.seq
        return events[-1].seq

    def _check_tells(self, event: DatabaseEvent, plan: Plan, begun: frozenset[int]) -> None:
        """Raise Lost if an entry does not show what now decides about a live set."""
        relation = event.relation
        for place, item in plan.live.items():
            if item.table != relation.table or item.id not in begun:
                continue
            known = self._telling.get((place, relation.id))
            if known is None:
                names = {column.name for column in relation.columns}
                known = columns(item.rls) | columns(item.filter) <= names
                self._telling[place, relation.id] = known
            if not known:
                raise HistoryLost("what decides was not captured yet")

    async def rows(
        self,
        events: Iterable[DatabaseEvent],
        subscription: Subscription,
        op: str,
        *,
        snapshot: bool = False,
    ) -> int:
        """Deliver these, and say how many it were: fewer than all if a snapshot is not taken in
        time."""
        sent = size = 0
        for event in events:
            frame = frames.of_row(
                event,
                self._port.version,
                self._port.topic,
                (subscription.id,),
                subscription.select,
                op=op,
                snapshot=snapshot,
            )
            self._port.outlet.put(frame)
            self._counters.sent(1, len(frame))
            sent += 1
            size += len(frame)
            if size > _CHUNK_BYTES:
                size = 0
                try:
                    async with asyncio.timeout(_PATIENCE_SECONDS if snapshot else None):
                        await self._port.writable()
                except TimeoutError:
                    return sent
                await asyncio.sleep(0)
        return sent


def told(op: str, seen: RowAt, seq: int, commit_us: int) -> DatabaseEvent:
    """A row that comes, or one that leaves: as an UPDATE would take it out, by its key alone."""
    relation, row = seen
    if op == "INSERT":
        return DatabaseEvent(seq, commit_us, relation, "INSERT", None, row)
    return DatabaseEvent(seq, commit_us, relation, "UPDATE", row, row)
