"""A replay: a channel on its way to the head of the log, and then live without a seam.

It delivers what came after a client's cursor, in order and once; the rows of a snapshot, as of the
position where the replay stands; and what other permissions take from a live set and give to it.
The channel is not subscribed meanwhile. When the replay meets the position of the process it is
subscribed, with nothing awaited between the comparison and the subscription, so that no event falls
between them or comes twice.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from auth_rls.predicates.predicate import Predicate
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.event_log.read_holds import holds
from realtime.protocol.join import Binding
from realtime.subscriptions.index import Subscription
from realtime.subscriptions.judgement import FilterTooCostly
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.context import ReplayContext
from realtime.subscriptions.replay.feed import Feed, HistoryLost, row_event
from realtime.subscriptions.replay.snapshot import (
    Place,
    RowMoves,
    Snapshot,
    SnapshotUnavailable,
    Values,
)
from realtime.subscriptions.replay.start import access_changed_since, resolve_cursor
from realtime.subscriptions.request import Request
from realtime.subscriptions.subscriber import Subscriber

logger = logging.getLogger("realtime.replay")

# Events between two looks at whether the client keeps up.
_CHUNK = 500
# Rows committed before a snapshot was asked for are to be in it, unless the log stands still.
_FRESH_SECONDS = 5.0
# A snapshot that cannot be read yet is tried again when the log has moved on.
_AGAIN_SECONDS = 1.0
_TRIES = 30
_NOT_BEGUN = sys.maxsize


class Replay:
    """One channel on its way. Make one by `from_cursors`, `moved` or `anew`.

    `plan` and `request` may be replaced on the way, when permissions change; what comes after
    follows them.
    """

    def __init__(
        self, port: Subscriber, request: Request, plan: Plan, means: ReplayContext
    ) -> None:
        self.port = port
        self.request = request
        self.plan = plan
        self._means = means
        self._feed = Feed(port, means)
        self._log = means.log
        self._epoch = means.log.epoch
        self._cursor = means.log.seq
        # For each binding id the seq that its events begin after.
        self._starts: dict[int, int] = {}
        # The snapshots that are still to be sent: by binding id, how many rows at most.
        self._snapshots: dict[int, int | None] = {}
        # By which verdicts the client holds the rows of its live sets.
        self._held: dict[Place, Predicate] = {}
        self._resumes = False
        self._tries = _TRIES

    @classmethod
    def from_cursors(
        cls, port: Subscriber, request: Request, plan: Plan, means: ReplayContext
    ) -> Replay:
        """For a new channel: each binding from its cursor, by its snapshot, or from now on."""
        replay = cls(port, request, plan, means)
        replay._resumes = any(binding.since is not None for binding in replay._bindings)
        return replay

    @classmethod
    def moved(
        cls,
        port: Subscriber,
        request: Request,
        held: Mapping[Place, Predicate],
        plan: Plan,
        means: ReplayContext,
    ) -> Replay:
        """For a channel whose live sets are those of these verdicts: they first become those of
        `plan`."""
        replay = cls(port, request, plan, means)
        replay._starts = dict.fromkeys((binding.id for binding in request.bindings), means.log.seq)
        replay._held = dict(held)
        return replay

    @classmethod
    def anew(
        cls,
        port: Subscriber,
        request: Request,
        plan: Plan,
        means: ReplayContext,
        concerned: Callable[[Binding], bool],
    ) -> Replay:
        """For a channel where these bindings begin anew: by a snapshot, or by "resync required"."""
        replay = cls(port, request, plan, means)
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
        """Go to the head, then call `arrived`. What cannot be kept ends in "resync required", or
        in a snapshot where one was asked for. `end` is called for bindings whose filters cost too
        much; it replaces `request` and `plan`.

        Raises Revoked, and what reading the database raises.
        """
        fresh = False
        with holds.reading(self._lowest()) as hold:
            if not self._starts:
                await self._find_starts()
            while True:
                try:
                    hold.move(self._cursor)
                    await self._settle()
                    await self._catch_up()
                    if self._feed.too_costly:
                        self._end_costly(end)
                    elif self._cursor == self._log.seq and self._snapshots:
                        if fresh:
                            await self._send_snapshots()
                        else:
                            await self._wait_for_committed()
                            fresh = True
                    elif self._arrived():
                        break
                except HistoryLost as error:
                    logger.info("replay: %s", error, extra={"action": "replay_lost"})
                    self._begin_anew(lambda binding: True)
                except FilterTooCostly as error:
                    self._feed.too_costly.add(error.subscription.id)
                    self._end_costly(end)
            arrived(self)
        if self._resumes:
            self.port.caught_up(self._log.position)

    def _end_costly(self, end: Callable[[Subscriber, Collection[int]], None]) -> None:
        ids = tuple(self._feed.too_costly)
        self._feed.too_costly.clear()
        for id_ in ids:
            self._snapshots.pop(id_, None)
        end(self.port, ids)

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
        self._hold(self._bindings)
        for binding in self._bindings:
            after: int | None = began_at
            if binding.since is not None:
                after = await resolve_cursor(binding.since, self._epoch, self._means)
                if after is not None and binding.live:
                    if await self._perhaps_changed(binding, after):
                        after = None
                    self._hold([binding])
            elif binding.snapshot is not None:
                self._snapshots[binding.id] = self._rows_of(binding)
                after = _NOT_BEGUN
            if after is None:
                lost.add(binding.id)
            else:
                starts[binding.id] = min(after, starts.get(binding.id, after))
        if any(b.id in lost and b.snapshot is None for b in self._bindings):
            # The client will read everything again, so nothing is replayed to it.
            lost = {binding.id for binding in self._bindings if binding.since is not None}
            self._resumes = False
            self.port.resync(Position(self._epoch, began_at))
        for binding in self._bindings:
            if binding.id in lost and binding.snapshot is not None:
                self._snapshots[binding.id] = self._rows_of(binding)
                starts[binding.id] = _NOT_BEGUN
            elif binding.id in lost:
                starts[binding.id] = began_at
        self._starts = starts
        self._cursor = min([*starts.values(), began_at])

    async def _perhaps_changed(self, binding: Binding, after: int) -> bool:
        """Whether what the subject may see has perhaps changed since the client was here."""
        while True:
            plan = self.plan
            mine = [item for item in plan.subscriptions if item.id == binding.id]
            changed = await access_changed_since(self.request.subject, mine, after, self._means)
            if plan is self.plan:
                return changed

    def _begin_anew(self, concerned: Callable[[Binding], bool]) -> None:
        """Let these bindings begin at the head, by a snapshot where they ask for one. Where one
        does not, the client is notified that it has to read its rows again."""
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
        self._hold(self._bindings)
        self._resumes = not resync and any(b.since is not None for b in self._bindings)
        if resync:
            self.port.resync(self._log.position)

    def _hold(self, bindings: Iterable[Binding]) -> None:
        """Take it that the client's sets are those of the verdicts as they are now."""
        ids = {binding.id for binding in bindings}
        self._held |= {p: self._now(item) for p, item in self.plan.live.items() if item.id in ids}

    def _now(self, item: Subscription) -> Predicate:
        """The verdict with the values that its sets have now."""
        return self._means.sets.resolve(item.rls)

    def _rows_of(self, binding: Binding) -> int | None:
        asked = None if binding.snapshot is None else binding.snapshot.limit
        limits = [most for most in (asked, self._means.bounds.rows) if most is not None]
        return min(limits, default=None)

    # --- events ---------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Deliver up to the head, or to where something else has to be done first."""
        payer = self.request.payer
        while self._cursor < self._log.seq and not self._unsettled():
            if self._epoch != self._log.epoch:
                raise HistoryLost("the log began anew")
            ahead = [start for start in self._starts.values() if self._cursor < start]
            upto = min([*ahead, self._log.seq])
            events = await self._means.reader.since(self._cursor, _CHUNK, upto, payer)
            if not events:
                raise HistoryLost("the log does not reach back so far")
            while events and not self._unsettled():
                async with self._means.loop.place(payer) as place:
                    began = time.perf_counter()
                    events = self._deliver(events)
                    place.charge(time.perf_counter() - began)
                if self._feed.too_costly:
                    return
                await self.port.writable()
                await asyncio.sleep(0)
        if self._epoch != self._log.epoch or self._cursor > self._log.seq:
            raise HistoryLost("the log began anew")

    def _deliver(self, events: Sequence[DatabaseEvent]) -> Sequence[DatabaseEvent]:
        """Deliver as many of these as fit. Returns the rest."""
        if self._epoch != self._log.epoch:
            raise HistoryLost("the log began anew")
        if self._unsettled():
            return events
        ids = (id_ for id_, start in self._starts.items() if start <= self._cursor)
        reached = self._feed.events(events, self.plan, frozenset(ids))
        rest = events[reached - self._cursor :]
        self._cursor = reached
        return rest

    # --- permissions ----------------------------------------------------------------------------

    def _live(self) -> dict[Place, Subscription]:
        return {
            place: item
            for place, item in self.plan.live.items()
            if self._starts.get(item.id, _NOT_BEGUN) <= self._cursor
        }

    def _unsettled(self) -> bool:
        """Whether the client holds rows by verdicts that are not those of now."""
        return any(self._held.get(p) != self._now(item) for p, item in self._live().items())

    async def _settle(self) -> None:
        """Bring each live set from the verdicts it is held by to those of now."""
        while self._unsettled():
            plan, live, at = self.plan, self._live(), Position(self._epoch, self._cursor)
            held = {place: self._held[place] for place in live if place in self._held}
            after = {place: self._now(item) for place, item in live.items()}
            self._tries -= 1
            try:
                found = await self._means.pictures.moves(
                    self.request, at, held, self._means.bounds.rows, self._values()
                )
            except SnapshotUnavailable as error:
                raise HistoryLost(str(error)) from None
            if not await self._agreed(plan, found):
                continue
            with self._means.pictures.unsent.keeping(self.request.payer, found.size):
                await self._send_moves(found, at)
            self._held |= after

    async def _send_moves(self, found: RowMoves, at: Position) -> None:
        payer = self.request.payer
        for subscription, leaving, coming in found.moves:
            for op, rows in (("DELETE", leaving), ("INSERT", coming)):
                events = (row_event(op, seen, at.seq + 1, found.commit_us) for seen in rows)
                if await self._feed.rows(events, subscription, op, payer) < len(rows):
                    raise HistoryLost("the client does not take the rows that come and go")

    def _values(self) -> Values:
        """The sets that the verdicts depend on, as they are now."""
        return self._means.sets.values(self.plan.row_selects)

    async def _agreed(self, plan: Plan, found: Snapshot | RowMoves) -> bool:
        """Whether rows were read by the policies that count here. If the database had others, the
        log will bring them: that is waited for. Raises Lost when it happens too often."""
        if plan.subscriptions == self.plan.subscriptions == found.plan.subscriptions:
            self.request = found.request
            return True
        if plan.subscriptions == self.plan.subscriptions:
            await self._log.beyond(self._log.seq, _AGAIN_SECONDS)
        self._check_tries("permissions change too fast")
        return False

    def _check_tries(self, reason: str) -> None:
        if self._tries <= 0:
            raise HistoryLost(reason)

    # --- rows -----------------------------------------------------------------------------------

    async def _wait_for_committed(self) -> None:
        """Return when what was committed before has been delivered here, so that it is in the
        snapshot."""
        committed = await self._means.reader.committed()
        if committed > self._log.seq:
            await self._log.beyond(committed - 1, _FRESH_SECONDS)

    async def _send_snapshots(self) -> None:
        """Send the rows of the snapshots that are wanted, if they can be read now."""
        wanted, at = dict(self._snapshots), Position(self._epoch, self._cursor)
        held = {p: self._now(item) for p, item in self.plan.live.items() if item.id in wanted}
        found = await self._read_snapshots(wanted, at)
        if found is None:
            return
        with self._means.pictures.unsent.keeping(self.request.payer, found.size):
            self.port.snapshot_begins(at)
            count, complete = await self._send_rows(found, at)
        self._snapshots = {}
        self._starts |= dict.fromkeys(wanted, at.seq)
        self._held |= held
        counters, most = self._means.counters, self._means.bounds.rows
        counters.snapshots += 1
        counters.snapshot_rows += count
        if not complete and most in wanted.values():
            counters.limits["snapshot_rows/channel"] += 1
        self.port.snapshot(at, count, complete)

    async def _read_snapshots(
        self, wanted: Mapping[int, int | None], at: Position
    ) -> Snapshot | None:
        """The rows as of this position. None if they cannot be read by the permissions of now:
        they are then to be read again, as of where the replay stands by then."""
        plan, values = self.plan, self._values()
        self._tries -= 1
        try:
            found = await self._means.pictures.snapshot(self.request, at, wanted, values)
        except SnapshotUnavailable as error:
            self._check_tries(str(error))
            await self._log.beyond(at.seq, _AGAIN_SECONDS)
            return None
        if not await self._agreed(plan, found):
            return None
        if values != self._values():
            # Nothing could take back the rows of a room that was left meanwhile.
            self._check_tries("permissions change too fast")
            return None
        return found

    async def _send_rows(self, found: Snapshot, at: Position) -> tuple[int, bool]:
        """Deliver the rows. Returns how many the client took, and whether these are all."""
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
