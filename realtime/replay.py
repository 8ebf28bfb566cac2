"""A replay: a channel on its way to the head of the log, and then live without a seam.

What came after a client's cursor, in order and once; the rows of a snapshot, at the place where the
replay stands; what other permissions take from a live set and give to it. The channel is not
subscribed meanwhile; when the replay meets the position of the process it is, with nothing awaited
between the look and the subscription, so no event falls between or comes twice.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from auth_rls.predicate import Predicate, columns
from realtime import frames
from realtime.counters import Counters
from realtime.cursors import Cursor
from realtime.effects import Position
from realtime.event import DatabaseEvent
from realtime.event_log import EventLog
from realtime.holds import holds
from realtime.joins import Binding
from realtime.log_reader import LogReader
from realtime.plan import Plan, Planners
from realtime.pool import in_database_thread
from realtime.sets import Sets
from realtime.snapshot import Pictures, Place, Request, Seen, Unclear, Values
from realtime.subscription import AudienceKey, Subscription, SubscriptionManager

if TYPE_CHECKING:
    from realtime.subscribers import Port

logger = logging.getLogger("realtime.replay")

# Events, and about as many bytes of frames, between two looks at whether the client keeps up.
_CHUNK = 500
_CHUNK_BYTES = 256 * 1024
# Another server may have shown the client what this one is about to hear.
_BEHIND_SECONDS = 5.0
# Rows committed before a snapshot was asked for are to be in it, unless the log stands still.
_FRESH_SECONDS = 5.0
# A snapshot that cannot be told yet is tried again when the log has moved on.
_AGAIN_SECONDS = 1.0
_TRIES = 30
# Rows already read do not wait for ever for a client to take them.
_PATIENCE_SECONDS = 30.0
_NOT_BEGUN = sys.maxsize


class Lost(Exception):
    """The way from here to the head is not known any more."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a replay works with. Limits count events and rows; None is no limit."""

    log: EventLog
    reader: LogReader
    sets: Sets
    pictures: Pictures
    planners: Planners
    on_failure: Callable[[Subscription, Exception], None]
    replay_events: int | None
    snapshot_rows: int | None
    # Snapshots that are read or being sent, each with its rows in memory.
    snapshots: asyncio.Semaphore
    counters: Counters


class Replay:
    """One port on its way. Make one by `from_cursors`, `moved` or `anew`.

    `plan` and `request` may be replaced on the way, when permissions change; what comes after
    follows them.
    """

    def __init__(self, port: Port, request: Request, plan: Plan, means: Means) -> None:
        self.port = port
        self.request = request
        self.plan = plan
        self._means = means
        self._log = means.log
        self._epoch = means.log.epoch
        self._cursor = means.log.seq
        # For each binding id the seq its events begin after.
        self._starts: dict[int, int] = {}
        self._snapshots: dict[int, int | None] = {}
        # By which verdicts the client holds the rows of its live sets.
        self._held: dict[Place, Predicate] = {}
        self._resumes = False
        self._tries = _TRIES
        self._fresh = False
        self._matching: tuple[object, SubscriptionManager[Port]] | None = None
        self._telling: dict[tuple[Place, str], bool] = {}

    @classmethod
    def from_cursors(cls, port: Port, request: Request, plan: Plan, means: Means) -> Replay:
        """For a new channel: each binding from its cursor, by its snapshot, or from now on."""
        replay = cls(port, request, plan, means)
        replay._resumes = any(binding.since is not None for binding in replay._bindings)
        return replay

    @classmethod
    def moved(
        cls,
        port: Port,
        request: Request,
        held: Mapping[Place, Predicate],
        plan: Plan,
        means: Means,
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
        port: Port,
        request: Request,
        plan: Plan,
        means: Means,
        concerned: Callable[[Binding], bool],
    ) -> Replay:
        """For a channel where these bindings begin anew: by a snapshot, or told to resync."""
        replay = cls(port, request, plan, means)
        replay._begin_anew(concerned)
        replay._resumes = False
        return replay

    @property
    def _bindings(self) -> list[Binding]:
        working = {subscription.id for subscription in self.plan.subscriptions}
        return [binding for binding in self.request.bindings if binding.id in working]

    async def run(self, arrived: Callable[[Replay], None]) -> None:
        """Go to the head, then call `arrived`. What cannot be kept ends in "resync required", or
        in a snapshot where one was asked for.

        Raises Revoked, and what reading the database raises.
        """
        with holds.reading(self._lowest()) as hold:
            if not self._starts:
                await self._place_bindings()
            while True:
                try:
                    hold.move(self._cursor)
                    await self._settle()
                    await self._catch_up()
                    if self._cursor == self._log.seq and self._snapshots:
                        await self._send_snapshots()
                    elif self._arrived():
                        break
                except Lost as error:
                    logger.info("replay: %s", error, extra={"action": "replay_lost"})
                    self._begin_anew(lambda binding: True)
            arrived(self)
        if self._resumes:
            self.port.caught_up(self._position)

    @property
    def _position(self) -> Position:
        return Position(self._log.epoch, self._log.seq)

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

    async def _place_bindings(self) -> None:
        began_at = self._cursor
        lost: set[int] = set()
        starts: dict[int, int] = {}
        self._hold(self._bindings)
        for binding in self._bindings:
            after: int | None = began_at
            if binding.since is not None:
                after = await self._place(binding.since)
                if after is not None and binding.live:
                    if await self._concerned(binding, after):
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
            # The client is told to read everything again, so nothing is replayed to it.
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

    def _begin_anew(self, concerned: Callable[[Binding], bool]) -> None:
        """Forget the way; these bindings begin at the head, by a snapshot where they ask for one.
        Who does not is told to resync."""
        self._epoch = self._log.epoch
        self._cursor = self._log.seq
        self._resumes = False
        told = False
        self._tries -= 1
        for binding in self._bindings:
            self._starts[binding.id] = self._cursor
            if concerned(binding):
                if binding.snapshot is not None and self._tries > 0:
                    self._snapshots[binding.id] = self._rows_of(binding)
                else:
                    self._snapshots.pop(binding.id, None)
                    told = True
            if binding.id in self._snapshots:
                self._starts[binding.id] = _NOT_BEGUN
        self._hold(self._bindings)
        if told:
            self.port.resync(self._position)
        else:
            self._resumes = any(binding.since is not None for binding in self._bindings)

    def _hold(self, bindings: Iterable[Binding]) -> None:
        """Take it that the client's sets are those of the verdicts as they are now."""
        ids = {binding.id for binding in bindings}
        self._held |= {p: self._now(item) for p, item in self.plan.live.items() if item.id in ids}

    def _now(self, item: Subscription) -> Predicate:
        """The verdict with the values that its sets have now."""
        return self._means.sets.resolve(item.rls)

    def _rows_of(self, binding: Binding) -> int | None:
        asked = None if binding.snapshot is None else binding.snapshot.limit
        bounds = [most for most in (asked, self._means.snapshot_rows) if most is not None]
        return min(bounds, default=None)

    async def _place(self, cursor: Cursor) -> int | None:
        if cursor.epoch is not None and cursor.epoch != self._log.epoch:
            return None
        seq = cursor.seq
        if seq is None and cursor.commit_us is not None:
            seq = await self._means.reader.seq_at(cursor.commit_us)
        if seq is None:
            return None
        if seq > self._log.seq:
            head = await self._means.reader.head()
            if head.epoch != self._log.epoch or head.seq < seq:
                return None
            if not await self._log.beyond(seq - 1, _BEHIND_SECONDS):
                return None
        if self._log.epoch != self._epoch:
            return None
        limit = self._means.replay_events
        if limit is not None and self._log.seq - seq > limit:
            self._means.counters.limits["replay_events/channel"] += 1
            return None
        return seq

    async def _concerned(self, binding: Binding, after: int) -> bool:
        """Whether what the subject may see has perhaps changed since the client was here."""
        while True:
            plan, subject = self.plan, self.request.subject
            mine = [item for item in plan.subscriptions if item.id == binding.id]
            concern = await in_database_thread(
                lambda: self._means.planners.get().concern(subject, mine)  # noqa: B023
            )
            # What changed at the cursor itself may have reached the client in part.
            try:
                since = await self._means.reader.on_tables(concern.tables, max(after - 1, 0))
            except OverflowError:
                return True
            if self.plan is plan:
                return concern.touched_by(since)

    # --- events ---------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Deliver up to the head, or to where something else has to be done first."""
        while self._cursor < self._log.seq and not self._unsettled():
            if self._epoch != self._log.epoch:
                raise Lost("the log began anew")
            ahead = [start for start in self._starts.values() if self._cursor < start]
            upto = min([*ahead, self._log.seq])
            events = await self._means.reader.since(self._cursor, _CHUNK, upto)
            if not events or self._epoch != self._log.epoch:
                raise Lost("the log does not reach back so far")
            if self._unsettled():
                return
            self._deliver(events)
            await self.port.writable()
            await asyncio.sleep(0)
        if self._epoch != self._log.epoch or self._cursor > self._log.seq:
            raise Lost("the log began anew")

    def _deliver(self, events: Sequence[DatabaseEvent]) -> None:
        begun = frozenset(id_ for id_, start in self._starts.items() if start <= self._cursor)
        key = (self.plan.subscriptions, begun, self._values())
        if self._matching is None or self._matching[0] != key:
            manager: SubscriptionManager[Port] = SubscriptionManager(self._means.on_failure)
            mine = tuple(
                replace(item, rls=self._now(item))
                for item in self.plan.subscriptions
                if item.id in begun
            )
            manager.set(self.port, AudienceKey(self.port.topic, self.port.version.value, mine))
            self._matching = key, manager
        matching = self._matching[1]
        size = 0
        for event in events:
            relation = event.relation
            if matching.on_table(relation.schema, relation.table):
                if event.old is None and event.new is None:
                    raise Lost(f"{event.op} of {relation.table}")
                self._check_tells(event, begun)
                for delivery in matching.match(event):
                    frame = frames.of_change(event, delivery)
                    self.port.outlet.put(frame)
                    self._means.counters.sent(1, len(frame))
                    size += len(frame)
            self._cursor = event.seq
            if size > _CHUNK_BYTES:
                return

    def _check_tells(self, event: DatabaseEvent, begun: frozenset[int]) -> None:
        """Raise Lost if an entry does not show what now decides about a live set."""
        relation = event.relation
        for place, item in self.plan.live.items():
            if item.table != relation.table or item.id not in begun:
                continue
            known = self._telling.get((place, relation.id))
            if known is None:
                names = {column.name for column in relation.columns}
                known = columns(item.rls) | columns(item.filter) <= names
                self._telling[place, relation.id] = known
            if not known:
                raise Lost("what decides was not captured yet")

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

    def _values(self) -> Values:
        """The sets that the verdicts hang on, as they are now."""
        return self._means.sets.values(self.plan.row_selects)

    async def _settle(self) -> None:
        """Bring each live set from the verdicts it is held by to those of now."""
        while self._unsettled():
            self._telling.clear()
            plan, values = self.plan, self._values()
            begun = frozenset(self._live())
            held = {place: self._held[place] for place in begun if place in self._held}
            after = {place: self._now(item) for place, item in self._live().items()}
            self._tries -= 1
            try:
                found = await self._means.pictures.moves(
                    self.request,
                    Position(self._epoch, self._cursor),
                    held,
                    self._means.snapshot_rows,
                    values,
                )
            except Unclear as error:
                raise Lost(str(error)) from None
            if not await self._agreed(plan, found.request, found.plan):
                continue
            for subscription, leaving, coming in found.moves:
                for op, rows in (("DELETE", leaving), ("INSERT", coming)):
                    events = (_told(op, seen, self._cursor + 1, found.commit_us) for seen in rows)
                    await self._deliver_rows(events, subscription, op)
            self._held |= after

    async def _agreed(self, plan: Plan, request: Request, seen: Plan) -> bool:
        """Whether a picture was taken by the policies that count here. If the database had others,
        the log will tell of them: that is waited for. Raises Lost when it happens too often."""
        if plan.subscriptions != self.plan.subscriptions:
            agreed = False
        elif plan.subscriptions != seen.subscriptions:
            agreed = False
            await self._log.beyond(self._log.seq, _AGAIN_SECONDS)
        else:
            agreed = True
            self.request = request
        if not agreed and self._tries <= 0:
            raise Lost("permissions change too fast")
        return agreed

    # --- rows -----------------------------------------------------------------------------------

    async def _send_snapshots(self) -> None:
        if not self._fresh:
            self._fresh = True
            committed = await self._means.reader.committed()
            if committed > self._log.seq:
                await self._log.beyond(committed - 1, _FRESH_SECONDS)
            return
        async with self._means.snapshots:
            plan, wanted, at = self.plan, dict(self._snapshots), self._cursor
            values = self._values()
            held = {p: self._now(item) for p, item in plan.live.items() if item.id in wanted}
            self._tries -= 1
            try:
                found = await self._means.pictures.snapshot(
                    self.request, Position(self._epoch, at), wanted, values
                )
            except Unclear as error:
                if self._tries <= 0:
                    raise Lost(str(error)) from None
                await self._log.beyond(at, _AGAIN_SECONDS)
                return
            if not await self._agreed(plan, found.request, found.plan):
                return
            if values != self._values():
                # Shown rows of a room that was left meanwhile, nobody could take them back.
                if self._tries <= 0:
                    raise Lost("permissions change too fast")
                return
            count, complete = 0, found.complete
            for subscription, rows in found.sets:
                events = (_told("INSERT", seen, at, found.commit_us) for seen in rows)
                sent = await self._deliver_rows(events, subscription, "INSERT", snapshot=True)
                count += sent
                if sent < len(rows):
                    complete = False
                    break
        self._starts |= dict.fromkeys(wanted, at)
        self._snapshots = {}
        self._held |= held
        self._means.counters.snapshots += 1
        self._means.counters.snapshot_rows += count
        if not complete and self._means.snapshot_rows in wanted.values():
            self._means.counters.limits["snapshot_rows/channel"] += 1
        self.port.snapshot(Position(self._epoch, at), count, complete)

    async def _deliver_rows(
        self,
        events: Iterable[DatabaseEvent],
        subscription: Subscription,
        op: str,
        *,
        snapshot: bool = False,
    ) -> int:
        """How many were delivered: fewer than all if a snapshot is not taken in time."""
        sent = size = 0
        for event in events:
            frame = frames.of_row(
                event,
                self.port.version,
                self.port.topic,
                (subscription.id,),
                subscription.select,
                op=op,
                snapshot=snapshot,
            )
            self.port.outlet.put(frame)
            self._means.counters.sent(1, len(frame))
            sent += 1
            size += len(frame)
            if size > _CHUNK_BYTES:
                size = 0
                try:
                    async with asyncio.timeout(_PATIENCE_SECONDS if snapshot else None):
                        await self.port.writable()
                except TimeoutError:
                    return sent
                await asyncio.sleep(0)
        return sent


def _told(op: str, seen: Seen, seq: int, commit_us: int) -> DatabaseEvent:
    """A row that comes, or one that leaves: as an UPDATE would take it out, by its key alone."""
    relation, row = seen
    if op == "INSERT":
        return DatabaseEvent(seq, commit_us, relation, "INSERT", None, row)
    return DatabaseEvent(seq, commit_us, relation, "UPDATE", row, row)
