"""The delivery of a replay to its channel: events of the log, and rows of snapshots.

Owns how rows are framed, and how long to wait for a client that takes no rows. The
replay decides which events and rows are delivered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from auth_rls.predicates.predicate import columns
from realtime.event_log.event import DatabaseEvent
from realtime.subscriptions import frames
from realtime.subscriptions.index import AudienceKey, Subscription
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.context import ReplayContext
from realtime.subscriptions.replay.shared_changes import ReplayAudience
from realtime.subscriptions.replay.snapshot import LiveKey, RowAt
from realtime.subscriptions.seen_change import SeenChange
from realtime.subscriptions.subscriber import Subscriber
from realtime.util.payer_queue import Payer
from realtime.util.time_slice import SLICE_SECONDS

# About how many bytes of frames are delivered before the replay waits for the client again.
_CHUNK_BYTES = 256 * 1024
_LOOK_SECONDS = 1.0


class CannotReplay(Exception):
    """The history from the position of a replay to the head is not kept any more."""


class Feed:
    """One per replay."""

    def __init__(self, subscriber: Subscriber, context: ReplayContext) -> None:
        self._subscriber = subscriber
        self._context = context
        #: Ids of bindings whose filters cost too much on the last event. The replay must end them
        #: before it delivers another event.
        self.too_costly: set[int] = set()
        #: Bytes of changes that were delivered since the replay last waited for the client.
        self.untaken = 0
        self._audience: ReplayAudience | None = None
        # The subscriptions and the values of sets that the audience was made of.
        self._followed: object = None
        self._tables: frozenset[tuple[str, str]] = frozenset()
        # Bytes of rows that were delivered, and seconds in which the client took none.
        self._delivered = 0
        self._waited = 0.0
        # Whether the entries of a relation have the columns that a live subscription reads.
        self._decidable: dict[tuple[LiveKey, str], bool] = {}

    def events(
        self,
        events: Sequence[DatabaseEvent],
        plan: Plan,
        begun: frozenset[int],
        writer: str | None = None,
    ) -> int:
        """Deliver events to the bindings of `plan` that have begun. Those that `writer` wrote, the
        user of the channel, carry their receipts. Stops after about as many bytes
        as a client is sent at once, at the end of a time slice, and after an event on which a
        filter costs too much. Returns the seq that was reached. Raises CannotReplay."""
        audience = self._follow(plan, begun)
        put = self._subscriber.outlet.put
        live = any(item.live for item in plan.subscriptions)
        until = time.perf_counter() + SLICE_SECONDS
        count = size = 0
        try:
            for event in events:
                relation = event.relation
                if (relation.schema, relation.table) in self._tables:
                    if event.names_no_row:
                        raise CannotReplay(f"{event.op} of {relation.table}")
                    if live:
                        self._check_decidable(event, plan, begun)
                    found = audience.found(event, event.tx_of(writer))
                    for frame in found.frames:
                        put(frame)
                    count += len(found.frames)
                    size += found.size
                    self.too_costly |= found.too_costly
                if size > _CHUNK_BYTES or self.too_costly or time.perf_counter() > until:
                    return event.seq
        finally:
            self._context.counters.frames_out += count
            self._context.counters.bytes_out += size
            self.untaken += size
        return events[-1].seq

    def _follow(self, plan: Plan, begun: frozenset[int]) -> ReplayAudience:
        """The audience of the subscriptions that have begun, with the present values of their
        sets."""
        context = self._context
        context.changes.begin(context.log.epoch)
        selects = plan.row_selects
        values = context.sets.values(selects) if selects else {}
        wanted = (plan.subscriptions, begun, values)
        if self._audience is not None and wanted == self._followed:
            return self._audience
        mine = tuple(
            replace(item, rls=context.sets.resolve(item.rls)) if selects else item
            for item in plan.subscriptions
            if item.id in begun
        )
        subscriber = self._subscriber
        key = AudienceKey(subscriber.topic, subscriber.version.value, mine, subscriber.change_frame)
        self._audience = context.changes.audience(key)
        self._followed = wanted
        self._tables = frozenset((item.schema, item.table) for item in mine)
        self._decidable.clear()
        return self._audience

    def _check_decidable(self, event: DatabaseEvent, plan: Plan, begun: frozenset[int]) -> None:
        """Raise CannotReplay if an entry lacks a column that a live subscription reads now."""
        relation = event.relation
        for key, item in plan.live.items():
            if item.table != relation.table or item.id not in begun:
                continue
            known = self._decidable.get((key, relation.id))
            if known is None:
                names = {column.name for column in relation.columns}
                known = columns(item.rls) | columns(item.filter) <= names
                self._decidable[key, relation.id] = known
            if not known:
                raise CannotReplay("what decides was not captured yet")

    async def rows(
        self,
        events: Iterable[DatabaseEvent],
        subscription: Subscription,
        op: str,
        payer: Payer,
        *,
        snapshot: bool = False,
    ) -> int:
        """Deliver rows, as events made by `row_event`, to one subscription. Returns how many were
        delivered: fewer than all if the client does not take them in time."""
        rest = iter(events)
        sent = 0
        while True:
            count, more = await self._context.loop.run(
                payer, lambda: self._some_rows(rest, subscription, op, snapshot)
            )
            sent += count
            if not more or not await self._taken():
                return sent
            await asyncio.sleep(0)

    def _some_rows(
        self, rest: Iterator[DatabaseEvent], subscription: Subscription, op: str, snapshot: bool
    ) -> tuple[int, bool]:
        """Deliver as many rows as a client is sent at once, or as fit in a time slice. Returns how
        many, and whether there may be more."""
        subscriber = self._subscriber
        if not subscriber.takes_more():
            return 0, True
        until = time.perf_counter() + SLICE_SECONDS
        size = 0
        for count, event in enumerate(rest, start=1):
            frame = frames.of_row(
                event,
                subscriber,
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
        """Wait until the client has taken most of the delivered rows. False if it does not do so in
        time. The time is shorter while other snapshots wait for memory; only then it ends for a
        patient subscriber."""
        bounds = self._context.bounds
        step = min(_LOOK_SECONDS, bounds.patience_seconds)
        if self._subscriber.patient:
            self._waited = 0.0
        while True:
            try:
                async with asyncio.timeout(step):
                    await self._subscriber.writable()
                    return True
            except TimeoutError:
                self._waited += step
            crowded = self._context.snapshots.unsent.crowded
            if self._subscriber.patient:
                if crowded and self._waited >= bounds.patience_seconds:
                    return False
                continue
            patience = bounds.crowded_patience_seconds if crowded else bounds.patience_seconds
            if self._waited >= patience + self._delivered / bounds.slowest_link * (not crowded):
                return False

    def _put(self, frame: str | SeenChange) -> int:
        self._subscriber.outlet.put(frame)
        self._context.counters.sent(1, len(frame))
        return len(frame)


def row_event(op: str, seen: RowAt, seq: int, commit_us: int) -> DatabaseEvent:
    """The event that brings a row to a client ("INSERT"), or takes it away ("DELETE"): an UPDATE
    that moves the row out of the live set, of which the client gets the key alone."""
    relation, row = seen
    if op == "INSERT":
        return DatabaseEvent(seq, commit_us, relation, "INSERT", None, row)
    return DatabaseEvent(seq, commit_us, relation, "UPDATE", row, row)
