"""Rebinding: who listens is brought to what permissions and sets are now, before events go on.

When permissions change, whoever that may concern is planned anew in a database thread and bound;
when the set behind a select does, it is moved and nobody is planned. While that goes on no event is
handed out, so it may take its time: others have their turn of the loop in between, and who joins
meanwhile is planned by what is true by now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from auth_rls.predicates.predicate import Select
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.subscriptions.access_watch import EVERYBODY, AccessWatch, RebindScope
from realtime.subscriptions.channels import Channels
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.planner import Plan, Planner, Planners
from realtime.subscriptions.request import Request
from realtime.subscriptions.subscriber import Subscriber
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread
from realtime.util.time_slice import TimeSlice

logger = logging.getLogger("realtime.rebinding")

T = TypeVar("T")

_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0
# Channels planned, and their sets read, at a time.
_AT_ONCE = 500


class Rebinding:
    """All methods are called on one event loop, by the one who hands out events."""

    def __init__(
        self, listening: Channels, sets: LiveSetStore, watch: AccessWatch, planners: Planners
    ) -> None:
        self._listening = listening
        self._sets = sets
        self._watch = watch
        self._planners = planners
        self._breath = TimeSlice()
        # Rises when permissions may have changed: a plan made before is not to be used after.
        self._generation = 0
        # Rises when a set may have.
        self._moved = 0

    @property
    def generation(self) -> int:
        """How often permissions may have changed. A user read before is not what he is now."""
        return self._generation

    def begin(self) -> None:
        """The log is followed from here on: what was read before may have been changed unheard."""
        self._generation += 1
        self._planners.forget()

    def standing(self, request: Request) -> tuple[int, int]:
        """What must be the same before and after a plan is made, or it is overtaken."""
        # Rights on a topic are read with the sets behind them; verdicts on rows look into the sets.
        return self._generation, 0 if request.private is None else self._moved

    async def shift(self, event: DatabaseEvent) -> None:
        """Take the sets over this change, before it is matched."""
        self._breath.begin()
        self._moved += 1
        self._planners.forget()
        shifts = self._sets.apply(event)
        for select, shift in shifts.of.items():
            self._listening.follow(select, shift)
        entitled = await self._tell()
        if shifts.stale:
            entitled |= await self._read_again(shifts.stale)
        if entitled:
            # What somebody may do on a topic has no place in the log; it is read as it is now.
            await self.rebind(RebindScope(), entitled)

    async def restart(self, at: Position) -> None:
        """Bind everything and read every set for another place, where the log goes on."""
        self._sets.restart(at)
        await self.rebind(RebindScope(everybody=True, lapsed=True))

    async def rebind(
        self, scope: RebindScope = EVERYBODY, ports: Collection[Subscriber] = ()
    ) -> None:
        """Bind whom it concerns, and these, to what the database says now; until then nothing
        moves on."""
        self._breath.begin()
        # In one breath: whoever is not among those found is planned after this.
        self._generation += 1
        self._planners.forget()
        found = self._concerned(scope, ports)
        planner = await self._insist(lambda: in_database_thread(self._watch.look))
        work = object()
        try:
            for start in range(0, len(found), _AT_ONCE):
                await self._bind(planner, found[start : start + _AT_ONCE], scope, ports, work)
        finally:
            self._sets.drop(work)
        lapsed = scope.lapsed
        if scope.edits and not lapsed:
            lapsed = await self._insist(lambda: in_database_thread(self._watch.lapsed, scope))
        if lapsed:
            entitled = await self._read_again(None)
            if entitled:
                await self.rebind(RebindScope(), entitled)

    def _concerned(self, scope: RebindScope, ports: Collection[Subscriber]) -> list[Subscriber]:
        requests = self._listening.requests
        if scope.everybody or scope.policies:
            return list(requests)
        found = dict.fromkeys(port for port in ports if port in requests)
        return list(found | dict.fromkeys(requests.of_users(scope.users)))

    async def _bind(
        self,
        planner: Planner,
        some: Collection[Subscriber],
        scope: RebindScope,
        ports: Collection[Subscriber],
        work: object,
    ) -> None:
        requests = self._listening.requests

        async def planned() -> _Plans:
            asked = {
                port: (requests[port], self._listening.plan_of(port))
                for port in some
                if port in requests
            }
            plans = await in_database_thread(_replan, planner, asked, scope, ports)
            # Held by this work until the ports do.
            await self._sets.need(work, plans.selects)
            return plans

        plans = await self._insist(planned)
        self._breath.begin()
        for port, (before, bound) in plans.of.items():
            await self._breath.pause()
            # Who left, or asked for something else meanwhile, is left alone.
            if requests.get(port) is not before:
                continue
            if bound is None:
                self._listening.remove(port)
                port.revoked()
                continue
            request, plan = bound
            if self._listening.bind(port, request, plan):
                port.resubscribed()
            if request.private is not None:
                port.permitted(plan.rights)

    async def _read_again(self, selects: Collection[Select] | None) -> set[Subscriber]:
        """Read these sets anew, or all. Who has other rights on a topic by them, perhaps, is
        returned."""
        await self._insist(lambda: self._sets.read_again(selects, self._listening.follow))
        return await self._tell()

    async def _tell(self) -> set[Subscriber]:
        """Bring to their new sets whoever hangs on those that shifted, and nobody else. Who has
        other rights on a topic by them, perhaps, is returned."""
        entitled: set[Subscriber] = set()
        for port in self._listening.shifted:
            if self._listening.tell(port):
                entitled.add(port)
            await self._breath.pause()
        return entitled

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it until the database lets us. Meanwhile nothing is delivered."""
        wait = _RETRY_FIRST
        while True:
            try:
                return await work()
            except DATABASE_ERRORS as error:
                logger.warning(
                    "permissions cannot be read, nothing is delivered: %s",
                    error,
                    extra={"action": "rebind_failed"},
                )
                await asyncio.sleep(wait)
                wait = min(wait * 2, _RETRY_MOST)


@dataclass(frozen=True, slots=True)
class _Plans:
    """By port, what it asked for and what that has become, None where its user may no longer ask;
    and the sets that all this needs."""

    of: Mapping[Subscriber, tuple[Request, tuple[Request, Plan] | None]]
    selects: Iterable[Select]


def _replan(
    planner: Planner,
    asked: Mapping[Subscriber, tuple[Request, Plan]],
    scope: RebindScope,
    ports: Collection[Subscriber],
) -> _Plans:
    requests = {
        port: request
        for port, (request, plan) in asked.items()
        if scope.everybody
        or port in ports
        or str(request.subject.user_id) in scope.users
        or not planner.agrees(plan)
    }
    plans: dict[Subscriber, tuple[Request, tuple[Request, Plan] | None]] = {}
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
