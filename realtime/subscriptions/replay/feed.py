"""What a replay delivers to its channel: events of the log, and rows that were read.

Owns how they are matched and framed, and how long a client is waited for that takes no rows. The
replay says which events and rows they are, and where it stands.
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
from realtime.subscriptions.replay.context import ReplayContext, evaluation_failed
from realtime.subscriptions.replay.snapshot import Place, RowAt
from realtime.subscriptions.subscriber import Subscriber

# About as many bytes of frames between two looks at whether the client keeps up.
_CHUNK_BYTES = 256 * 1024


class HistoryLost(Exception):
    """The history from here to the head is not known any more."""


class Feed:
    """One per replay."""

    def __init__(self, port: Subscriber, means: ReplayContext) -> None:
        self._port = port
        self._means = means
        #: Bindings whose filters cost too much on the last event; nothing goes on before they end.
        self.too_costly: set[int] = set()
        self._index = self._empty()
        # What the index was made of.
        self._indexed: object = None
        # Whether the entries of a relation have the columns that decide about a live set.
        self._decidable: dict[tuple[Place, str], bool] = {}

    def events(self, events: Sequence[DatabaseEvent], plan: Plan, begun: frozenset[int]) -> int:
        """Deliver what the bindings that have begun get of these by a plan, up to about as much as
        a client is sent at once, or up to one on which a filter costs too much. Returns the seq
        that was reached; raises HistoryLost."""
        self._follow(plan, begun)
        size = 0
        for event in events:
            relation = event.relation
            if self._index.on_table(relation.schema, relation.table):
                if event.old is None and event.new is None:
                    raise HistoryLost(f"{event.op} of {relation.table}")
                self._check_decidable(event, plan, begun)
                for delivery in self._index.match(event):
                    size += self._put(frames.of_change(event, delivery))
            if size > _CHUNK_BYTES or self.too_costly:
                return event.seq
        return events[-1].seq

    def _empty(self) -> SubscriptionIndex[Subscriber]:
        return SubscriptionIndex(
            evaluation_failed, on_too_costly=lambda _, item: self.too_costly.add(item.id)
        )

    def _follow(self, plan: Plan, begun: frozenset[int]) -> None:
        """Index the subscriptions that have begun, with the values that their sets have now."""
        sets = self._means.sets
        wanted = (plan.subscriptions, begun, sets.values(plan.row_selects))
        if wanted == self._indexed:
            return
        mine = tuple(
            replace(item, rls=sets.resolve(item.rls))
            for item in plan.subscriptions
            if item.id in begun
        )
        self._index = self._empty()
        self._index.set(self._port, AudienceKey(self._port.topic, self._port.version.value, mine))
        self._indexed = wanted
        self._decidable.clear()

    def _check_decidable(self, event: DatabaseEvent, plan: Plan, begun: frozenset[int]) -> None:
        """Raise Lost if an entry lacks a column that now decides about a live set."""
        relation = event.relation
        for place, item in plan.live.items():
            if item.table != relation.table or item.id not in begun:
                continue
            known = self._decidable.get((place, relation.id))
            if known is None:
                names = {column.name for column in relation.columns}
                known = columns(item.rls) | columns(item.filter) <= names
                self._decidable[place, relation.id] = known
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
        """Deliver these. Returns how many were delivered: fewer than all when they are rows of a
        snapshot and the client does not take them in time."""
        patience = self._means.bounds.patience_seconds if snapshot else None
        sent = size = 0
        for event in events:
            size += self._put(
                frames.of_row(
                    event,
                    self._port.version,
                    self._port.topic,
                    (subscription.id,),
                    subscription.select,
                    op=op,
                    snapshot=snapshot,
                )
            )
            sent += 1
            if size > _CHUNK_BYTES:
                size = 0
                try:
                    async with asyncio.timeout(patience):
                        await self._port.writable()
                except TimeoutError:
                    return sent
                await asyncio.sleep(0)
        return sent

    def _put(self, frame: str) -> int:
        self._port.outlet.put(frame)
        self._means.counters.sent(1, len(frame))
        return len(frame)


def row_event(op: str, seen: RowAt, seq: int, commit_us: int) -> DatabaseEvent:
    """The event that brings a row to a client, or takes it away: as an UPDATE that moves the row
    out of the set, with the key alone."""
    relation, row = seen
    if op == "INSERT":
        return DatabaseEvent(seq, commit_us, relation, "INSERT", None, row)
    return DatabaseEvent(seq, commit_us, relation, "UPDATE", row, row)
