"""The live sets behind selects of one process, kept at the position of the log.

Each distinct select is read once, however many subscriptions need it, as of a position in the log:
changes that the database shows beyond that position are undone by the images in the log. From there
on, changes move the set without a query. A set that a change cannot move is read again, alone. A
set that no holder retains is dropped.

Everything here is on one event loop; `set_reader` reads in a database thread. Decides about no row.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from auth_rls.predicates.predicate import Predicate, Select
from auth_rls.predicates.selects import resolve
from auth_rls.sets.live_set import Change, LiveSets, SetDelta, Shifts
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.event_log.ring import EventLog
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.identity_tables import table_of
from realtime.subscriptions.set_reader import Found, SetReader, change_of
from realtime.util.database_threads import in_database_thread
from realtime.util.time_slice import TimeSlice

# Sets that are read together and added without awaiting.
_AT_ONCE = 250


@dataclass(eq=False, slots=True)
class _Reading:
    """A read under way, and the changes since its position."""

    at: Position
    missed: list[Change] = field(default_factory=list)
    void: bool = False


@dataclass(eq=False, slots=True)
class _Batch:
    """Selects that several holders wait for, read together."""

    wanted: dict[Select, None] = field(default_factory=dict)
    waiting: int = 0
    task: asyncio.Task[None] | None = None


class LiveSetStore:
    """Sets are kept for holders, which are any hashable objects: a channel, or a piece of work."""

    def __init__(self, alias: str, log: EventLog, watch: AccessWatch) -> None:
        #: The database of the log.
        self.alias = alias
        self._log = log
        self._reader = SetReader(alias, watch)
        self._live_sets = LiveSets(table_of)
        self._holders: dict[Select, dict[object, None]] = {}
        self._retained: dict[object, dict[Select, None]] = {}
        # For each select, how many holders and outer sets need it.
        self._named: Counter[Select] = Counter()
        # The position of the live sets, where it is not the position of the log.
        self._ahead: Position | None = None
        self._readings: list[_Reading] = []
        self._next: _Batch | None = None
        self._coming: dict[Select, _Batch] = {}
        self._one_read = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._live_sets)

    # --- asking ---------------------------------------------------------------------------------

    def members(self, select: Select) -> Collection[object]:
        """The live set of a select: a collection that changes as the log goes on."""
        return self._live_sets.members(select)

    def values(self, selects: Iterable[Select]) -> dict[Select, frozenset[object]]:
        """The present values of these sets."""
        return {select: self._live_sets[select].values for select in selects}

    def resolve(
        self, predicate: Predicate, before: Mapping[Select, SetDelta] | None = None
    ) -> Predicate:
        """The predicate with the present values in place of its selects, or with the values before
        the shifts in `before`."""

        def values_of(select: Select) -> frozenset[object]:
            values = self._live_sets[select].values
            shift = None if before is None else before.get(select)
            return values if shift is None else (values | shift.removed) - shift.added

        return resolve(predicate, values_of)

    def reads(self, table: str) -> bool:
        """Whether a change of this table may move a set."""
        return self._live_sets.reads(table)

    # --- retaining --------------------------------------------------------------------------------

    def holders(self, select: Select) -> Collection[object]:
        """The holders of this set."""
        return self._holders.get(select, {})

    def retained(self, holder: object) -> Collection[Select]:
        """The selects whose sets this holder retains."""
        return self._retained.get(holder, {}).keys()

    def retain(self, holder: object, selects: Iterable[Select]) -> None:
        """Let the holder retain these sets, which must be here, in place of those it had."""
        before = self._retained.pop(holder, {})
        wanted = dict.fromkeys(selects)
        if wanted:
            self._retained[holder] = wanted
        for select in wanted:
            self._holders.setdefault(select, {})[holder] = None
            self._named[select] += 1
        for select in before:
            if select not in wanted:
                holders = self._holders[select]
                del holders[holder]
                if not holders:
                    del self._holders[select]
            self._unname(select)

    def release(self, holder: object) -> None:
        """Let the holder retain no set."""
        self.retain(holder, ())

    async def acquire(self, holder: object, selects: Iterable[Select]) -> None:
        """Let the holder retain these sets; those that are not here are read first. Raises what the
        database raises; the holder may then retain some of them."""
        selects = tuple(selects)
        while True:
            known = [select for select in selects if select in self._live_sets]
            self.retain(holder, known)
            missing = [select for select in selects if select not in self._live_sets]
            if not missing:
                return
            batches = {self._batch_of(select): None for select in missing}
            for batch in batches:
                batch.waiting += 1
            try:
                await asyncio.gather(*(asyncio.shield(_task_of(batch)) for batch in batches))
                self.retain(holder, [select for select in selects if select in self._live_sets])
            finally:
                for batch in batches:
                    batch.waiting -= 1
                    if not batch.waiting:
                        self.release(batch)

    def _batch_of(self, select: Select) -> _Batch:
        """The batch in which this select is being read, or will be."""
        found = self._coming.get(select)
        if found is None:
            if self._next is None or len(self._next.wanted) >= _AT_ONCE:
                self._next = _Batch()
                self._next.task = asyncio.create_task(self._fill(self._next), name="rowcast-sets")
                self._next.task.add_done_callback(_retrieve)
            found = self._coming[select] = self._next
            found.wanted[select] = None
        return found

    # --- moving ---------------------------------------------------------------------------------

    def apply(self, event: DatabaseEvent) -> Shifts:
        """Move the sets by this change. Sets that become stale have to be read again."""
        at = self.position
        if event.seq <= at.seq:
            # It was applied already: the event comes again after a failure.
            return Shifts()
        self._ahead = Position(self._log.epoch, event.seq)
        change = change_of(event)
        for reading in self._readings:
            reading.missed.append(change)
        return self._live_sets.apply(change)

    def restart(self, at: Position) -> None:
        """The log goes on from another position. Every set must be read again."""
        self._ahead = at
        self._void()

    def file_again(self) -> None:
        """Find the sets by their present values: after a move that was broken off."""
        self._live_sets.file_again()

    async def read_again(
        self,
        selects: Collection[Select] | None = None,
        shifted: Callable[[Select, SetDelta], None] = lambda select, shift: None,
    ) -> dict[Select, SetDelta]:
        """Read these sets anew, or all, as of their position. Returns the shifts.

        `shifted` is called for each set as it changes, before anything is awaited; other tasks run
        between two sets. `apply` must not be called meanwhile. Raises what the database raises;
        nothing changes then.
        """
        if selects is None:
            self._void()
            selects = tuple(self._live_sets)
        if not selects:
            return {}
        found = await in_database_thread(self._reader.read, tuple(selects), self.position)
        shifts: dict[Select, SetDelta] = {}
        time_slice = TimeSlice()
        for select, one in found.items():
            if select in self._live_sets:
                shift = self._live_sets.replace(select, one.counts, one.exact)
                if shift:
                    shifts[select] = shift
                    shifted(select, shift)
            await time_slice.pause()
        return shifts

    def _void(self) -> None:
        for reading in self._readings:
            reading.void = True

    @property
    def position(self) -> Position:
        """The position of the sets: that of the log, or that of the event that is delivered
        next."""
        here = Position(self._log.epoch, self._log.seq)
        ahead = self._ahead
        if ahead is None or (ahead.epoch == here.epoch and ahead.seq <= here.seq):
            return here
        return ahead

    def _unname(self, select: Select) -> None:
        self._named[select] -= 1
        if self._named[select]:
            return
        del self._named[select]
        nested = self._live_sets[select].nested
        self._live_sets.discard(select)
        for inner in nested:
            self._unname(inner)

    # --- reading --------------------------------------------------------------------------------

    async def _fill(self, batch: _Batch) -> None:
        async with self._one_read:
            # Selects that are requested from now on are read next time.
            if self._next is batch:
                self._next = None
            try:
                await self._bring(batch)
            finally:
                for select in batch.wanted:
                    del self._coming[select]

    async def _bring(self, batch: _Batch) -> None:
        while True:
            reading = _Reading(self.position)
            self._readings.append(reading)
            try:
                found = await in_database_thread(self._reader.read, tuple(batch.wanted), reading.at)
            finally:
                self._readings.remove(reading)
            if not reading.void and reading.at.epoch == self.position.epoch:
                brought = _brought_on(found, reading.missed)
                if brought is not None:
                    break
        for select, one in brought.items():
            if select not in self._live_sets:
                live_set = self._live_sets.add(select, one.counts, one.exact)
                self._named.update(live_set.nested)
        # The batch retains the sets until the holders that wait do.
        self.retain(batch, batch.wanted)
        if not batch.waiting:
            self.release(batch)


def _task_of(batch: _Batch) -> asyncio.Task[None]:
    assert batch.task is not None
    return batch.task


def _retrieve(task: asyncio.Task[None]) -> None:
    # The holders that wait get the exception. If none is left, asyncio would log it.
    if not task.cancelled():
        task.exception()


def _brought_on(
    found: Mapping[Select, Found], missed: Sequence[Change]
) -> Mapping[Select, Found] | None:
    """The sets that were read, moved by the changes since; None where a change cannot move them."""
    if not missed:
        return found
    world = LiveSets(table_of)
    for select, one in found.items():
        world.add(select, one.counts, one.exact)
    for change in missed:
        if world.apply(change).stale:
            return None
    return {select: Found(world[select].counts, world[select].exact) for select in found}
