"""Rebinding: subscribed channels follow changes of permissions and sets before the next event.

When permissions change, the channels that the change may concern are planned anew in a database
thread and bound. When the set behind a select changes, the set is moved and no channel is planned.
No event is delivered meanwhile, so other tasks may run in between; a channel that joins meanwhile
is planned by the permissions of that moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from auth_rls.access.past import PastUnknown
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.predicates.predicate import Select
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.subscriptions.access_watch import EVERYBODY, AccessWatch, RebindScope
from realtime.subscriptions.channels import Channels
from realtime.subscriptions.known_users import KnownUsers
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.planner import Plan, Planner
from realtime.subscriptions.planners import Planners
from realtime.subscriptions.request import Request
from realtime.subscriptions.subscriber import Subscriber
from realtime.util.backoff import Backoff
from realtime.util.database_threads import in_database_thread, passes
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
        users: KnownUsers,
        rhythm: Rhythm,
    ) -> None:
        self._channels = channels
        self._sets = sets
        self._watch = watch
        self._planners = planners
        self._users = users
        self._planned_together = rhythm.planned_together
        self._time_slice = TimeSlice(rhythm.slice_seconds)
        self._outage = OutageLog(
            logger,
            failing="permissions cannot be read, nothing is delivered: %s",
            failing_action="rebind_failed",
            works="permissions can be read again",
            works_action="rebind_works",
        )
        #: Rises when permissions may have changed: plans and users that were read before must not
        #: be used after. `Request.read` takes it before the subject is read.
        self.generation = 0
        # Rises when a set may have changed.
        self._moved = 0

    def begin(self) -> None:
        """The log is followed from here on. Permissions that were read before may have changed
        unnoticed, so they are read again."""
        self.generation += 1
        self._planners.forget()
        self._users.follow()

    def end(self) -> None:
        """The log is not followed any more."""
        self._users.unfollow()

    def overtake(self, event: DatabaseEvent) -> None:
        """This change is about permissions, and `rebind` follows before another event is delivered.
        Plans that were made before must not be used, nor users that it concerns."""
        self.generation += 1
        self._planners.forget()
        self._forget_users(self._watch.scope([event]))

    def generation_of(self, request: Request) -> tuple[int, int]:
        """A plan is valid only if this is the same before and after it is made."""
        # Rights on a topic are computed with the values of sets; predicates on rows read the sets.
        return self.generation, 0 if request.private is None else self._moved

    async def shift(self, event: DatabaseEvent) -> None:
        """Move the sets by this change. Call it before the event is matched."""
        self._time_slice.begin()
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
        """Bind every channel and read every set anew, as of another position of the log. What was
        done before, and perhaps broken off, does not count."""
        self._sets.restart(at)
        self._file_again()
        await self.rebind(RebindScope(everybody=True, capture_gap=True))

    async def rebind(
        self,
        scope: RebindScope = EVERYBODY,
        subscribers: Collection[Subscriber] = (),
        at: Position | None = None,
    ) -> None:
        """Bind the channels in `scope`, and `subscribers`, to the permissions at the position `at`
        of the log; without one, to the present permissions. Returns when that is done, however long
        the database does not answer."""
        self._time_slice.begin()
        # Nothing is awaited up to `found`: any other channel is planned in the new generation.
        self.generation += 1
        self._planners.forget()
        self._forget_users(scope)
        found = self._concerned(scope, subscribers)
        await self._insist(lambda: in_database_thread(self._watch.look))
        if scope.policies:
            # Fields of users that policies newly read were perhaps not captured before.
            self._users.forget(None)
        work = object()
        try:
            for start in range(0, len(found), self._planned_together):
                some = found[start : start + self._planned_together]
                await self._bind(some, scope, subscribers, at, work)
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

    async def rebind_tables(self, tables: Collection[str], at: Position) -> None:
        """Bind the channels with bindings on these tables (by `db_table`) as of this position."""
        asks_for = self._channels.asks_for
        concerned = [channel for channel in self._channels if asks_for(channel, tables)]
        await self.rebind(RebindScope(), concerned, at)

    def _forget_users(self, scope: RebindScope) -> None:
        self._users.forget(None if scope.everybody or scope.policies else scope.users)

    def _concerned(
        self, scope: RebindScope, subscribers: Collection[Subscriber]
    ) -> list[Subscriber]:
        if scope.everybody or scope.policies:
            return list(self._channels)
        found = dict.fromkeys(
            subscriber for subscriber in subscribers if subscriber in self._channels
        )
        return list(found | dict.fromkeys(self._channels.of_users(scope.users)))

    async def _bind(
        self,
        some: Collection[Subscriber],
        scope: RebindScope,
        subscribers: Collection[Subscriber],
        at: Position | None,
        work: object,
    ) -> None:
        channels = self._channels

        async def planned() -> _Plans:
            asked: dict[Subscriber, tuple[Request, Plan]] = {}
            for subscriber in some:
                request = channels.request_of(subscriber)
                if request is not None:
                    asked[subscriber] = request, channels.plan_of(subscriber)
            plans = await in_database_thread(self._replan, asked, scope, subscribers, at)
            # This work retains the sets until the channels do.
            await self._sets.acquire(work, plans.selects)
            return plans

        plans = await self._insist(planned)
        self._time_slice.begin()
        for subscriber, (before, bound) in plans.of.items():
            await self._time_slice.pause()
            if plans.unknown:
                subscriber.resync(self._sets.position)
            # Skip a channel that has left or has another request by now.
            if channels.request_of(subscriber) is not before:
                continue
            if bound is None:
                channels.remove(subscriber)
                subscriber.revoked()
                continue
            request, plan = bound
            ended, returned = _differences(channels.plan_of(subscriber), plan)
            changed = channels.bind(subscriber, request, plan)
            for problem in ended:
                subscriber.binding_ended(problem, working=bool(plan.subscriptions))
            if changed and plan.subscriptions:
                subscriber.resubscribed()
            if returned:
                # What changed meanwhile is not known.
                subscriber.resync(self._sets.position)
            if request.private is not None:
                subscriber.permitted(plan.rights)

    def _replan(
        self,
        asked: Mapping[Subscriber, tuple[Request, Plan]],
        scope: RebindScope,
        subscribers: Collection[Subscriber],
        at: Position | None,
    ) -> _Plans:
        """Plan by the permissions of this position, or by the present ones. In a database
        thread."""
        where = "present" if at is None else at.seq
        with nullcontext() if at is None else one_snapshot(self._sets.alias):
            try:
                planner = Planner() if at is None else self._watch.planner_at(at)
                return _replan(planner, asked, scope, subscribers)
            except PastUnknown as error:
                logger.warning(
                    "permissions at %s cannot be known, and deny: %s",
                    where,
                    error,
                    extra={"action": "past_unknown"},
                )
            except Exception as error:
                if passes(error):
                    raise
                # Tried again it would fail again, and nobody would get anything any more.
                logger.exception(
                    "permissions at %s cannot be computed, and deny",
                    where,
                    extra={"action": "past_unknown"},
                )
            # Users as they were then cannot be known either: take them as they are now.
            nothing = Planner(PolicySnapshot(()))
            return replace(_replan(nothing, asked, scope, subscribers), unknown=True)

    async def _read_again(self, selects: Collection[Select] | None) -> set[Subscriber]:
        """Read these sets anew, or all. Returns the channels whose rights on a topic may have
        changed."""

        async def read() -> None:
            try:
                await self._sets.read_again(selects, self._channels.follow)
            except Exception:
                # Sets that were replaced already would show no difference next time.
                self._file_again()
                raise

        await self._insist(read)
        return await self._apply_shifts()

    def _file_again(self) -> None:
        """Bring every index to the sets as they are. Nothing is awaited, so nobody asks an index
        that has followed some sets and not others."""
        self._sets.file_again()
        self._channels.index.file_again()

    async def _apply_shifts(self) -> set[Subscriber]:
        """Bring each channel whose sets have shifted to the new sets. Returns the channels whose
        rights on a topic may have changed."""
        entitled: set[Subscriber] = set()
        for subscriber in self._channels.shifted:
            if self._channels.apply_shifts(subscriber):
                entitled.add(subscriber)
            await self._time_slice.pause()
        return entitled

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, tried again until it succeeds, whatever it raises. Nothing is
        delivered meanwhile."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
        while True:
            try:
                done = await work()
            except Exception as error:
                if self._outage.problem is None and not passes(error):
                    logger.exception("rebinding failed", extra={"action": "rebind_failed"})
                self._outage.failed(error)
                await asyncio.sleep(backoff.next())
            else:
                self._outage.worked()
                return done


# The request and the new plan of a channel; None where its user may no longer ask.
_Bound = tuple[Request, Plan] | None


@dataclass(frozen=True, slots=True)
class _Plans:
    """New plans: for each channel the request that was planned and its outcome; and the selects
    that the plans need."""

    of: Mapping[Subscriber, tuple[Request, _Bound]]
    selects: Iterable[Select]
    #: The permissions at the position cannot be known, so these plans deny.
    unknown: bool = False


def _differences(before: Plan, plan: Plan) -> tuple[list[str], bool]:
    """The problems that bindings did not have before, those of single tables among them, and
    whether bindings have tables that they did not have before. Both plans are of the same
    bindings."""
    pairs = zip(before.problems, plan.problems, strict=True)
    ended = [now for then, now in pairs if now is not None and now != then]
    ended += [problem for problem in plan.obstructed if problem not in before.obstructed]
    tables = {(item.id, item.schema, item.table) for item in plan.subscriptions}
    known = {(item.id, item.schema, item.table) for item in before.subscriptions}
    return ended, not tables <= known


def _replan(
    planner: Planner,
    asked: Mapping[Subscriber, tuple[Request, Plan]],
    scope: RebindScope,
    subscribers: Collection[Subscriber],
) -> _Plans:
    """Plan the channels whose users or policies changed. One that cannot be planned, because the
    project's own code about its user raises, is ended, and the others are planned."""
    try:
        return _plan_together(planner, asked, scope, subscribers)
    except Exception as error:
        if isinstance(error, PastUnknown) or passes(error):
            raise
        if len(asked) <= 1:
            logger.exception("a channel cannot be planned", extra={"action": "plan_failed"})
            return _Plans({one: (request, None) for one, (request, _) in asked.items()}, ())
    channels = list(asked)
    middle = len(channels) // 2
    halves = [
        _replan(planner, {one: asked[one] for one in half}, scope, subscribers)
        for half in (channels[:middle], channels[middle:])
    ]
    of = {one: bound for half in halves for one, bound in half.of.items()}
    return _Plans(of, [select for half in halves for select in half.selects])


def _plan_together(
    planner: Planner,
    asked: Mapping[Subscriber, tuple[Request, Plan]],
    scope: RebindScope,
    subscribers: Collection[Subscriber],
) -> _Plans:
    requests = {
        subscriber: request
        for subscriber, (request, plan) in asked.items()
        if scope.everybody
        or subscriber in subscribers
        or str(request.subject.user_id) in scope.users
        or not planner.agrees(plan)
    }
    plans: dict[Subscriber, tuple[Request, _Bound]] = {}
    renewed = planner.renew(request.subject for request in requests.values())
    planner.prefetch(subject for subject in renewed.values() if subject is not None)
    needed: dict[Select, None] = {}
    for subscriber, request in requests.items():
        subject = renewed[request.subject]
        if subject is None:
            plans[subscriber] = request, None
            continue
        bound = replace(request, subject=subject)
        plan = bound.plan(planner)
        plans[subscriber] = request, (bound, plan)
        needed.update(dict.fromkeys(plan.selects))
    return _Plans(plans, needed)
