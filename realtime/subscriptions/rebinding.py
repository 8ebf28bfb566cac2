"""Rebinding: subscribed channels are brought to what permissions and sets are now, before events go
on.

When permissions change, the channels that this may concern are planned anew in a database thread
and bound. When the set behind a select changes, the set is moved and no channel is planned. No
event is delivered meanwhile, so this may take its time: it lets other tasks run in between, and a
channel that joins meanwhile is planned by what is true by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from auth_rls.access.past import PastUnknown
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.predicates.predicate import Select
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.subscriptions.access_watch import EVERYBODY, AccessWatch, RebindScope
from realtime.subscriptions.channels import Channels
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.planner import Plan, Planner, Planners
from realtime.subscriptions.request import Request
from realtime.subscriptions.subscriber import Subscriber
from realtime.util.backoff import Backoff
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread
from realtime.util.outage_log import OutageLog
from realtime.util.time_slice import SLICE_SECONDS, TimeSlice
from realtime.wal.snapshots import one_snapshot

logger = logging.getLogger("realtime.rebinding")

T = TypeVar("T")

_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How much is done before other tasks run."""

    #: Seconds of work on the event loop at a time.
    slice_seconds: float = SLICE_SECONDS
    #: Channels planned, and their sets read, at a time.
    planned_together: int = 500


class Rebinding:
    """All methods are called on one event loop, by the task that delivers events."""

    def __init__(
        self,
        channels: Channels,
        sets: LiveSetStore,
        watch: AccessWatch,
        planners: Planners,
        rhythm: Rhythm,
    ) -> None:
        self._channels = channels
        self._sets = sets
        self._watch = watch
        self._planners = planners
        self._planned_together = rhythm.planned_together
        self._breath = TimeSlice(rhythm.slice_seconds)
        self._outage = OutageLog(
            logger,
            failing="permissions cannot be read, nothing is delivered: %s",
            failing_action="rebind_failed",
            works="permissions can be read again",
            works_action="rebind_works",
        )
        #: Rises when permissions may have changed: a plan, or a user, that was read before is not
        #: to be used after. For `Request.read` it is taken before the subject is read.
        self.generation = 0
        # Rises when a set may have changed.
        self._moved = 0

    def begin(self) -> None:
        """The log is followed from here on: what was read before may have been changed unheard."""
        self.generation += 1
        self._planners.forget()

    def overtake(self) -> None:
        """Permissions have changed, and will be followed before another event is delivered: what
        was planned before is not to be used."""
        self.generation += 1
        self._planners.forget()

    def generation_of(self, request: Request) -> tuple[int, int]:
        """What must be the same before and after a plan is made, or the plan is overtaken."""
        # Rights on a topic are read with the sets behind them; verdicts on rows look into the sets.
        return self.generation, 0 if request.private is None else self._moved

    async def shift(self, event: DatabaseEvent) -> None:
        """Move the sets by this change, before it is matched."""
        self._breath.begin()
        self._moved += 1
        self._planners.forget()
        shifts = self._sets.apply(event)
        for select, shift in shifts.of.items():
            self._channels.follow(select, shift)
        entitled = await self._apply_shifts()
        if shifts.stale:
            entitled |= await self._read_again(shifts.stale)
        if entitled:
            await self.rebind(RebindScope(), entitled, self._sets.position)

    async def restart(self, at: Position) -> None:
        """Bind every channel and read every set for another position, where the log goes on."""
        self._sets.restart(at)
        await self.rebind(RebindScope(everybody=True, capture_gap=True))

    async def rebind(
        self,
        scope: RebindScope = EVERYBODY,
        ports: Collection[Subscriber] = (),
        at: Position | None = None,
    ) -> None:
        """Bind the channels in this scope, and these, to the permissions as they were at this
        position of the log; without one, as they are now. Returns when that is done, however long
        the database is away."""
        self._breath.begin()
        # Nothing is awaited up to `found`: a channel that is not among these is planned after this.
        self.generation += 1
        self._planners.forget()
        found = self._concerned(scope, ports)
        await self._insist(lambda: in_database_thread(self._watch.look))
        work = object()
        try:
            for start in range(0, len(found), self._planned_together):
                some = found[start : start + self._planned_together]
                await self._bind(some, scope, ports, at, work)
        finally:
            self._sets.release(work)
        capture_gap = scope.capture_gap
        if scope.edits and not capture_gap:
            capture_gap = await self._insist(
                lambda: in_database_thread(self._watch.capture_gap, scope)
            )
        if capture_gap:
            entitled = await self._read_again(None)
            if entitled:
                await self.rebind(RebindScope(), entitled, at)

    def _concerned(self, scope: RebindScope, ports: Collection[Subscriber]) -> list[Subscriber]:
        if scope.everybody or scope.policies:
            return list(self._channels)
        found = dict.fromkeys(port for port in ports if port in self._channels)
        return list(found | dict.fromkeys(self._channels.of_users(scope.users)))

    async def _bind(
        self,
        some: Collection[Subscriber],
        scope: RebindScope,
        ports: Collection[Subscriber],
        at: Position | None,
        work: object,
    ) -> None:
        channels = self._channels

        async def planned() -> _Plans:
            asked: dict[Subscriber, tuple[Request, Plan]] = {}
            for port in some:
                request = channels.request_of(port)
                if request is not None:
                    asked[port] = request, channels.plan_of(port)
            plans = await in_database_thread(self._replan, asked, scope, ports, at)
            # Held by this work until the channels do.
            await self._sets.acquire(work, plans.selects)
            return plans

        plans = await self._insist(planned)
        self._breath.begin()
        for port, (before, bound) in plans.of.items():
            await self._breath.pause()
            if plans.unknown:
                port.resync(self._sets.position)
            # A channel that left, or asked for something else meanwhile, is left alone.
            if channels.request_of(port) is not before:
                continue
            if bound is None:
                channels.remove(port)
                port.revoked()
                continue
            request, plan = bound
            if channels.bind(port, request, plan):
                port.resubscribed()
            if request.private is not None:
                port.permitted(plan.rights)

    def _replan(
        self,
        asked: Mapping[Subscriber, tuple[Request, Plan]],
        scope: RebindScope,
        ports: Collection[Subscriber],
        at: Position | None,
    ) -> _Plans:
        """Plan by the permissions of this position. In a database thread."""
        if at is None:
            return _replan(Planner(), asked, scope, ports)
        with one_snapshot(self._sets.alias):
            try:
                return _replan(self._watch.planner_at(at), asked, scope, ports)
            except PastUnknown as error:
                logger.warning(
                    "permissions at %s cannot be known, and deny: %s",
                    at.seq,
                    error,
                    extra={"action": "past_unknown"},
                )
                # Nothing is known of who they were, either: users are as they are now.
                nothing = Planner(PolicySnapshot(()))
                return replace(_replan(nothing, asked, scope, ports), unknown=True)

    async def _read_again(self, selects: Collection[Select] | None) -> set[Subscriber]:
        """Read these sets anew, or all. Returns the channels whose rights on a topic may have
        changed by them."""
        await self._insist(lambda: self._sets.read_again(selects, self._channels.follow))
        return await self._apply_shifts()

    async def _apply_shifts(self) -> set[Subscriber]:
        """Bring the channels to their new sets whose sets have shifted, and no others. Returns
        those whose rights on a topic may have changed by them."""
        entitled: set[Subscriber] = set()
        for port in self._channels.shifted:
            if self._channels.apply_shifts(port):
                entitled.add(port)
            await self._breath.pause()
        return entitled

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Try again until the database lets us. Nothing is delivered meanwhile."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
        while True:
            try:
                done = await work()
            except DATABASE_ERRORS as error:
                self._outage.failed(error)
                await asyncio.sleep(backoff.next())
            else:
                self._outage.worked()
                return done


# What a channel asked for and is bound to from here on; None where its user may no longer ask.
_Bound = tuple[Request, Plan] | None


@dataclass(frozen=True, slots=True)
class _Plans:
    """By channel, the request that was planned and what has become of it; and the sets that all
    this needs."""

    of: Mapping[Subscriber, tuple[Request, _Bound]]
    selects: Iterable[Select]
    #: The permissions of the position are not known: these plans deny.
    unknown: bool = False


def _replan(
    planner: Planner,
    asked: Mapping[Subscriber, tuple[Request, Plan]],
    scope: RebindScope,
    ports: Collection[Subscriber],
) -> _Plans:
    """Plan those whose users or policies changed."""
    requests = {
        port: request
        for port, (request, plan) in asked.items()
        if scope.everybody
        or port in ports
        or str(request.subject.user_id) in scope.users
        or not planner.agrees(plan)
    }
    plans: dict[Subscriber, tuple[Request, _Bound]] = {}
    renewed = planner.renew(request.subject for request in requests.values())
    planner.prefetch(subject for subject in renewed.values() if subject is not None)
    needed: dict[Select, None] = {}
    for port, request in requests.items():
        subject = renewed[request.subject]
        if subject is None:
            plans[port] = request, None
            continue
        bound = replace(request, subject=subject)
        plan = bound.plan(planner)
        plans[port] = request, (bound, plan)
        needed.update(dict.fromkeys(plan.selects))
    return _Plans(plans, needed)
