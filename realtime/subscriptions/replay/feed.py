"""What a replay delivers to its channel: events of the log, and rows that were read.

Owns how they are matched and framed, and how long a client is waited for that takes no rows. The
replay says which events and rows they are, and where it stands.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from auth_rls.predicates.predicate import columns
from realtime.event_log.event import DatabaseEvent
from realtime.subscriptions import frames
from realtime.subscriptions.index import AudienceKey, Subscription, SubscriptionIndex
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.context import ReplayContext, evaluation_failed
from realtime.subscriptions.replay.snapshot import Place, RowAt
from realtime.subscriptions.subscriber import Subscriber
from realtime.util.fair_share import Payer
from realtime.util.time_slice import SLICE_SECONDS

# About as many bytes of frames between two looks at whether the client keeps up.
_CHUNK_BYTES = 256 * 1024
# A client that takes rows more slowly than this, in bytes a second, loses its patience.
_SLOWEST = 64 * 1024
_LOOK_SECONDS = 1.0


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
        self._tables: frozenset[tuple[str, str]] = frozenset()
        # Bytes of rows that were delivered, and seconds for which their client took none.
        self._delivered = 0
        self._waited = 0.0
        # Whether the entries of a relation have the columns that decide about a live set.
        self._decidable: dict[tuple[Place, str], bool] = {}

    def events(self, events: Sequence[DatabaseEvent], plan: Plan, begun: frozenset[int]) -> int:
        """Deliver what the bindings that have begun get of these by a plan, up to about as much as
        a client is sent at once, or as fits a slice of the loop, or up to one on which a filter
        costs too much. Returns the seq that was reached; raises HistoryLost."""
        self._follow(plan, begun)
        until = time.perf_counter() + SLICE_SECONDS
        size = 0
        for event in events:
            relation = event.relation
            if (relation.schema, relation.table) in self._tables:
                if event.old is None and event.new is None:
                    raise HistoryLost(f"{event.op} of {relation.table}")
                self._check_decidable(event, plan, begun)
                for delivery in self._index.match(event):
                    size += self._put(frames.of_change(event, delivery))
            if size > _CHUNK_BYTES or self.too_costly or time.perf_counter() > until:
                return event.seq
        return events[-1].seq

    def _empty(self) -> SubscriptionIndex[Subscriber]:
        # The index knows the set and not the feed, or the two would keep each other alive.
        too_costly = self.too_costly
        return SubscriptionIndex(
            evaluation_failed, on_too_costly=lambda _, item: too_costly.add(item.id)
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
        port = self._port
        key = AudienceKey(port.topic, port.version.value, mine, port.change_frame)
        self._index.set(port, key)
        self._indexed = wanted
        self._tables = frozenset((item.schema, item.table) for item in mine)
        self._decidable.clear()

    def _check_decidable(self, event: DatabaseEvent, plan: Plan, begun: frozenset[int]) -> None:
        """Raise HistoryLost if an entry lacks a column that now decides about a live set."""
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
        payer: Payer,
        *,
        snapshot: bool = False,
    ) -> int:
        """Deliver these. Returns how many were delivered: fewer than all when the client does not
        take them in time."""
        rest = iter(events)
        sent = 0
        while True:
            async with self._means.loop.place(payer) as place:
                began = time.perf_counter()
                count, more = self._some_rows(rest, subscription, op, snapshot)
                place.charge(time.perf_counter() - began)
            sent += count
            if not more or not await self._taken():
                return sent
            await asyncio.sleep(0)

    def _some_rows(
        self, rest: Iterator[DatabaseEvent], subscription: Subscription, op: str, snapshot: bool
    ) -> tuple[int, bool]:
        """Deliver as many as a client is sent at once, or as fit a slice of the loop. Returns how
        many, and whether there may be more."""
        port = self._port
        until = time.perf_counter() + SLICE_SECONDS
        size = 0
        for count, event in enumerate(rest, start=1):
            frame = frames.of_row(
                event,
                port,
                (subscription.id,),
                subscription.select,
                op=op,
                snapshot=snapshot,
            )
            size += self._put(frame)
            if size > _CHUNK_BYTES or time.perf_counter() > until:
                self._delivered += size
                return count, True
        self._delivered += size
        return 0 if not size else count, False

    async def _taken(self) -> bool:
        """Wait until the client has taken most of what was delivered. False if it does not in
        time; there is less of it while other snapshots wait for memory."""
        bounds = self._means.bounds
        step = min(_LOOK_SECONDS, bounds.patience_seconds)
        while True:
            try:
                async with asyncio.timeout(step):
                    await self._port.writable()
                    return True
            except TimeoutError:
                self._waited += step
            crowded = self._means.pictures.unsent.crowded
            patience = bounds.crowded_patience_seconds if crowded else bounds.patience_seconds
            if self._waited >= patience + self._delivered / _SLOWEST * (not crowded):
                return False

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
