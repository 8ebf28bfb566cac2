"""A replay: it brings one channel to the position of the process, where the channel becomes live.

It delivers the events after a client's cursor, in order and once; the rows of a snapshot, as of the
position of the replay; and the rows that come and go in a live set by other permissions. The
channel is not subscribed meanwhile. When the replay reaches the position of the process, the
channel is subscribed without awaiting, so that no event is missed or comes twice.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from auth_rls.predicates.predicate import Predicate
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.event_log.read_holds import Hold, holds
from realtime.protocol.join import ANY, Binding
from realtime.protocol.table_key import TableKey
from realtime.subscriptions.index import Subscription
from realtime.subscriptions.judgement import FilterTooCostly
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.context import ReplayContext
from realtime.subscriptions.replay.feed import CannotReplay, Feed, row_event
from realtime.subscriptions.replay.snapshot import (
    LiveKey,
    RowMoves,
    Snapshot,
    SnapshotUnavailable,
    Values,
)
from realtime.subscriptions.request import Request
from realtime.subscriptions.subscriber import Subscriber
from realtime.util.backoff import Backoff
from realtime.util.database_threads import passes
from realtime.wal import published

logger = logging.getLogger("realtime.replay")

# Events that are delivered before the replay waits for the client again.
_CHUNK = 500
# Bytes that a channel is sent on arriving without another look at its client, as live changes are.
_AT_ONCE_BYTES = 16_384
# So long the events of a chunk that are left are kept for a client that takes none.
_KEPT_SECONDS = 1.0
# A snapshot waits so long for the numbering of changes committed before it was requested.
_FRESH_SECONDS = 5.0
# How long to wait for the log to move on, before a snapshot that cannot be read is tried again.
_AGAIN_SECONDS = 1.0
_TRIES = 30
_NOT_BEGUN = sys.maxsize
# Between two attempts to read the database, for a subscriber that waits for it.
_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0


class Replay:
    """The replay of one channel. Make one by `from_cursors`, `moved`, `paced` or `anew`.

    `plan` and `request` may be replaced while it runs, when permissions change.
    """

    def __init__(
        self, subscriber: Subscriber, request: Request, plan: Plan, context: ReplayContext
    ) -> None:
        self.subscriber = subscriber
        self.request = request
        self.plan = plan
        self._context = context
        self._feed = Feed(subscriber, context)
        self._log = context.log
        self._epoch = context.log.epoch
        self._cursor = context.log.seq
        # For each binding id, the seq after which its events are delivered.
        self._starts: dict[int, int] = {}
        # The snapshots that are still to be sent: for each binding id, the most rows of it.
        self._snapshots: dict[int, int | None] = {}
        # The predicates by which the client has the rows of its live sets.
        self._client_verdicts: dict[LiveKey, Predicate] = {}
        self._resumes = False
        self._tries = _TRIES
        # Whether the client has to take what it was sent before.
        self._waits = False
        # The live subscriptions of a plan, made once for each plan.
        self._live_of: tuple[Plan, dict[LiveKey, Subscription]] | None = None

    @classmethod
    def from_cursors(
        cls, subscriber: Subscriber, request: Request, plan: Plan, context: ReplayContext
    ) -> Replay:
        """For a new channel: each binding begins at its cursor, by its snapshot, or at the head."""
        replay = cls(subscriber, request, plan, context)
        replay._resumes = any(binding.since is not None for binding in replay._bindings)
        return replay

    @classmethod
    def moved(
        cls,
        subscriber: Subscriber,
        request: Request,
        verdicts: Mapping[LiveKey, Predicate],
        plan: Plan,
        context: ReplayContext,
    ) -> Replay:
        """For a channel whose client has the rows of live sets by other predicates, `verdicts`: it
        is first sent the rows that come and go."""
        replay = cls(subscriber, request, plan, context)
        replay._starts = dict.fromkeys(
            (binding.id for binding in request.bindings), context.log.seq
        )
        replay._client_verdicts = dict(verdicts)
        return replay

    @classmethod
    def paced(
        cls,
        subscriber: Subscriber,
        request: Request,
        verdicts: Mapping[LiveKey, Predicate],
        plan: Plan,
        context: ReplayContext,
    ) -> Replay:
        """For a channel that has had everything up to here and takes no more for now: it goes on
        when it does. `verdicts` as in `moved`."""
        replay = cls.moved(subscriber, request, verdicts, plan, context)
        replay._waits = True
        return replay

    @classmethod
    def anew(
        cls,
        subscriber: Subscriber,
        request: Request,
        plan: Plan,
        context: ReplayContext,
        concerned: Callable[[Binding], bool],
    ) -> Replay:
        """For a channel of which the bindings that `concerned` is true of begin anew: by a
        snapshot, or by "resync required"."""
        replay = cls(subscriber, request, plan, context)
        replay._begin_anew(concerned)
        replay._resumes = False
        return replay

    @property
    def _bindings(self) -> list[Binding]:
        working = {subscription.id for subscription in self.plan.subscriptions}
        return [binding for binding in self.request.bindings if binding.id in working]

    async def run(
        self,
        arrived: Callable[[Replay], None],
        end: Callable[[Subscriber, Collection[int]], None],
    ) -> None:
        """Deliver up to the position of the process, then call `arrived`. Where the history is not
        kept, the binding begins anew by its snapshot or by "resync required". `end` is called for
        bindings whose filters cost too much; it must replace `request` and `plan`.

        Raises Revoked, and what reading the database raises.
        """
        fresh = False
        found = bool(self._starts)
        backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
        with holds.reading(self._lowest()) as hold:
            while True:
                try:
                    if not found:
                        await self._find_starts()
                        found = True
                    if self._waits:
                        await self._writable(hold)
                        self._waits = False
                    hold.move(self._cursor)
                    await self._settle()
                    await self._catch_up(hold)
                    if self._feed.too_costly:
                        self._end_costly(end)
                    elif self._cursor == self._log.seq and self._snapshots:
                        if fresh:
                            await self._send_snapshots(hold)
                        else:
                            await self._wait_for_committed()
                            fresh = True
                    elif self._arrived():
                        break
                except CannotReplay as error:
                    logger.info("replay: %s", error, extra={"action": "replay_lost"})
                    self._begin_anew(lambda binding: True)
                except FilterTooCostly as error:
                    self._feed.too_costly.add(error.subscription.id)
                    self._end_costly(end)
                except Exception as error:
                    if not (self.subscriber.patient and passes(error)):
                        raise
                    logger.debug("replay: %s", error, extra={"action": "replay_waits"})
                    await asyncio.sleep(backoff.next())
                else:
                    backoff.reset()
            arrived(self)
        if self._resumes:
            self.subscriber.caught_up(self._log.position)

    def _end_costly(self, end: Callable[[Subscriber, Collection[int]], None]) -> None:
        ids = tuple(self._feed.too_costly)
        self._feed.too_costly.clear()
        for id_ in ids:
            self._snapshots.pop(id_, None)
        end(self.subscriber, ids)

    def _arrived(self) -> bool:
        return (
            self._cursor == self._log.seq
            and self._epoch == self._log.epoch
            and not self._unsettled()
            and not self._snapshots
        )

    # --- where to begin -------------------------------------------------------------------------

    def _lowest(self) -> int:
        named = [b.since.seq for b in self.request.bindings if b.since and b.since.seq is not None]
        return min([self._cursor, *named]) if not self._starts else self._cursor

    async def _find_starts(self) -> None:
        began_at = self._cursor
        lost: set[int] = set()
        starts: dict[int, int] = {}
        self._assume_current(self._bindings)
        for binding in self._bindings:
            after: int | None = began_at
            if binding.since is not None:
                after = await self._context.start.resolve_cursor(binding.since, self._epoch)
                if after is not None and binding.live:
                    if await self._perhaps_changed(binding, after):
                        after = None
                    self._assume_current([binding])
            elif binding.snapshot is not None:
                self._snapshots[binding.id] = self._rows_of(binding)
                after = _NOT_BEGUN
            if after is None:
                lost.add(binding.id)
            else:
                starts[binding.id] = min(after, starts.get(binding.id, after))
        if any(b.id in lost and b.snapshot is None for b in self._bindings):
            # The client will read all rows again, so no binding is replayed.
            lost = {binding.id for binding in self._bindings if binding.since is not None}
            self._resumes = False
            self.subscriber.resync(Position(self._epoch, began_at))
        for binding in self._bindings:
            if binding.id in lost and binding.snapshot is not None:
                self._snapshots[binding.id] = self._rows_of(binding)
                starts[binding.id] = _NOT_BEGUN
            elif binding.id in lost:
                starts[binding.id] = began_at
        self._starts = starts
        self._cursor = min([*starts.values(), began_at])

    async def _perhaps_changed(self, binding: Binding, after: int) -> bool:
        """Whether the subject's sight of the binding's rows may have changed since this seq."""
        while True:
            plan = self.plan
            mine = [item for item in plan.subscriptions if item.id == binding.id]
            changed = await self._context.start.access_changed_since(
                self.request.subject, mine, after
            )
            if plan is self.plan:
                return changed

    def _begin_anew(self, concerned: Callable[[Binding], bool]) -> None:
        """Begin these bindings anew at the head: by a snapshot if they ask for one, else by telling
        the client to read its rows again."""
        self._epoch = self._log.epoch
        self._cursor = self._log.seq
        resync = False
        self._tries -= 1
        for binding in self._bindings:
            self._starts[binding.id] = self._cursor
            if concerned(binding):
                if binding.snapshot is not None and self._tries > 0:
                    self._snapshots[binding.id] = self._rows_of(binding)
                else:
                    self._snapshots.pop(binding.id, None)
                    resync = True
            if binding.id in self._snapshots:
                self._starts[binding.id] = _NOT_BEGUN
        self._assume_current(self._bindings)
        self._resumes = not resync and any(b.since is not None for b in self._bindings)
        if resync:
            self.subscriber.resync(self._log.position)

    def _assume_current(self, bindings: Iterable[Binding]) -> None:
        """Take it that the client has the rows of these bindings by the present predicates."""
        ids = {binding.id for binding in bindings}
        self._client_verdicts |= {
            p: self._now(item) for p, item in self._plan_live.items() if item.id in ids
        }

    def _now(self, item: Subscription) -> Predicate:
        """The predicate of a subscription with the present values of its sets."""
        return self._context.sets.resolve(item.rls)

    def _rows_of(self, binding: Binding) -> int | None:
        asked = None if binding.snapshot is None else binding.snapshot.limit
        limits = [most for most in (asked, self._context.bounds.rows) if most is not None]
        return min(limits, default=None)

    # --- events ---------------------------------------------------------------------------------

    async def _catch_up(self, hold: Hold) -> None:
        """Deliver events up to the head, or up to where a live set has to be settled first."""
        payer = self.request.payer
        while self._cursor < self._log.seq and not self._unsettled():
            if self._epoch != self._log.epoch:
                raise CannotReplay("the log began anew")
            ahead = [start for start in self._starts.values() if self._cursor < start]
            upto = min([*ahead, self._log.seq])
            events = list(await self._context.reader.since(self._cursor, _CHUNK, upto, payer))
            if not events:
                raise CannotReplay("the log does not reach back so far")
            while events and not self._unsettled():
                events = await self._context.loop.run(payer, partial(self._deliver, events))
                if self._feed.too_costly:
                    return
                if events or self._feed.untaken > _AT_ONCE_BYTES:
                    await self._taken(events, hold)
        if self._epoch != self._log.epoch or self._cursor > self._log.seq:
            raise CannotReplay("the log began anew")

    async def _taken(self, rest: list[DatabaseEvent], hold: Hold) -> None:
        """Wait until the client has taken most of what it was sent. The events that are left are
        forgotten if that takes long, and read again: many slow clients would keep much of the log
        in memory."""
        forgets = asyncio.get_running_loop().call_later(_KEPT_SECONDS, rest.clear)
        try:
            await self._writable(hold)
        finally:
            forgets.cancel()
        self._feed.untaken = 0
        await asyncio.sleep(0)

    async def _writable(self, hold: Hold) -> None:
        """Wait until the client has taken most of what it was sent. Retention alone says how long a
        patient one may take: it does not keep the log from being pruned."""
        if self.subscriber.patient:
            hold.let_go()
        await self.subscriber.writable()
        hold.move(self._cursor)

    def _deliver(self, events: list[DatabaseEvent]) -> list[DatabaseEvent]:
        """Deliver events until the feed stops. Returns the rest."""
        if self._epoch != self._log.epoch:
            raise CannotReplay("the log began anew")
        # The replays of all channels of a socket deliver at once, and fill one outbox.
        if self._unsettled() or not self.subscriber.takes_more():
            return events
        ids = (id_ for id_, start in self._starts.items() if start <= self._cursor)
        reached = self._feed.events(events, self.plan, frozenset(ids), self.request.writer)
        rest = events[reached - self._cursor :]
        self._cursor = reached
        return rest

    # --- permissions ----------------------------------------------------------------------------

    @property
    def _plan_live(self) -> dict[LiveKey, Subscription]:
        """The live subscriptions of the plan."""
        known, plan = self._live_of, self.plan
        if known is None or known[0] is not plan:
            known = self._live_of = plan, plan.live
        return known[1]

    def _live(self) -> dict[LiveKey, Subscription]:
        """Those that have begun."""
        return {
            key: item
            for key, item in self._plan_live.items()
            if self._starts.get(item.id, _NOT_BEGUN) <= self._cursor
        }

    def _unsettled(self) -> bool:
        """Whether the client has the rows of a live set by another predicate than the present
        one."""
        if not self._plan_live:
            return False
        return any(
            self._client_verdicts.get(p) != self._now(item) for p, item in self._live().items()
        )

    async def _settle(self) -> None:
        """Send the rows that come and go in each live set, until the client has them by the present
        predicate."""
        while self._unsettled():
            plan, live, at = self.plan, self._live(), Position(self._epoch, self._cursor)
            verdicts = {
                key: self._client_verdicts[key] for key in live if key in self._client_verdicts
            }
            after = {key: self._now(item) for key, item in live.items()}
            self._tries -= 1
            try:
                found = await self._context.snapshots.moves(
                    self.request, at, verdicts, self._context.bounds.rows, self._values()
                )
            except SnapshotUnavailable as error:
                raise CannotReplay(str(error)) from None
            if not await self._agreed(plan, found):
                continue
            with self._context.snapshots.unsent.keeping(self.request.payer, found.size):
                await self._send_moves(found, at)
            self._client_verdicts |= after

    async def _send_moves(self, found: RowMoves, at: Position) -> None:
        payer = self.request.payer
        for subscription, leaving, coming in found.moves:
            for op, rows in (("DELETE", leaving), ("INSERT", coming)):
                events = (row_event(op, seen, at.seq + 1, found.commit_us) for seen in rows)
                if await self._feed.rows(events, subscription, op, payer) < len(rows):
                    raise CannotReplay("the client does not take the rows that come and go")

    def _values(self) -> Values:
        """The present values of the sets that the predicates on rows read."""
        return self._context.sets.values(self.plan.row_selects)

    async def _agreed(self, plan: Plan, found: Snapshot | RowMoves) -> bool:
        """Whether rows were read by the policies that this process applies. If the database had
        others, wait for the log to bring their change. Raises CannotReplay if that happens too
        often."""
        if plan.subscriptions == self.plan.subscriptions == found.plan.subscriptions:
            self.request = found.request
            return True
        if plan.subscriptions == self.plan.subscriptions:
            await self._log.beyond(self._log.seq, _AGAIN_SECONDS)
        self._check_tries("permissions change too fast")
        return False

    def _check_tries(self, reason: str) -> None:
        if self._tries <= 0:
            raise CannotReplay(reason)

    # --- rows -----------------------------------------------------------------------------------

    async def _wait_for_committed(self) -> None:
        """Wait until the changes that were committed before the call have been numbered and
        delivered here, so that a snapshot includes them."""
        committed = await self._context.reader.committed()
        if committed > self._log.seq:
            await self._log.beyond(committed - 1, _FRESH_SECONDS)

    async def _send_snapshots(self, hold: Hold) -> None:
        """Send the rows of the pending snapshots, if they can be read now."""
        wanted, at = dict(self._snapshots), Position(self._epoch, self._cursor)
        verdicts = {p: self._now(item) for p, item in self._plan_live.items() if item.id in wanted}
        found = await self._read_snapshots(wanted, at)
        if found is None:
            return
        with self._context.snapshots.unsent.keeping(self.request.payer, found.size):
            self.subscriber.snapshot_begins(at, self._keys_of(wanted))
            if self.subscriber.patient:
                hold.let_go()
            count, complete = await self._send_rows(found, at)
        self._snapshots = {}
        self._starts |= dict.fromkeys(wanted, at.seq)
        self._client_verdicts |= verdicts
        counters, most = self._context.counters, self._context.bounds.rows
        counters.snapshots += 1
        counters.snapshot_rows += count
        if not complete and most in wanted.values():
            counters.limits["snapshot_rows/channel"] += 1
        self.subscriber.snapshot(at, count, complete)

    def _keys_of(self, ids: Collection[int]) -> list[TableKey]:
        """The primary keys of the tables that these bindings name and that work. A binding on many
        tables names none of them, and does not learn which there are."""
        named = {b.id for b in self.request.bindings if b.table != ANY and b.schema != ANY}
        tables = {
            (item.schema, item.table): None
            for item in self.plan.subscriptions
            if item.id in ids and item.id in named
        }
        return [TableKey(*each, published.key_of(*each)) for each in tables]

    async def _read_snapshots(
        self, wanted: Mapping[int, int | None], at: Position
    ) -> Snapshot | None:
        """The rows as of this position. None if they cannot be read by the present permissions; the
        caller then reads again, as of the position it has by then."""
        plan, values = self.plan, self._values()
        self._tries -= 1
        try:
            found = await self._context.snapshots.snapshot(self.request, at, wanted, values)
        except SnapshotUnavailable as error:
            self._check_tries(str(error))
            await self._log.beyond(at.seq, _AGAIN_SECONDS)
            return None
        if not await self._agreed(plan, found):
            return None
        if values != self._values():
            # Rows of a set that the subject has left meanwhile could not be taken back.
            self._check_tries("permissions change too fast")
            return None
        return found

    async def _send_rows(self, found: Snapshot, at: Position) -> tuple[int, bool]:
        """Deliver the rows. Returns how many the client took, and whether these are all rows."""
        count = 0
        for subscription, rows in found.sets:
            events = (row_event("INSERT", seen, at.seq, found.commit_us) for seen in rows)
            sent = await self._feed.rows(
                events, subscription, "INSERT", self.request.payer, snapshot=True
            )
            count += sent
            if sent < len(rows):
                return count, False
        return count, found.complete
