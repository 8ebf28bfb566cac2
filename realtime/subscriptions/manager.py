"""The Subscription Manager of one process: the requests of its channels, bound to what their
subjects may see now.

A channel that joins is planned in a database thread and added on the event loop. `channels` holds
the channels; `rebinding` plans them anew when permissions change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

from realtime.event_log.event import DatabaseEvent
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.protocol.join import ANY
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.channels import Channels
from realtime.subscriptions.known_users import KnownUsers
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.planner import Plan, Planner
from realtime.subscriptions.planners import Planners
from realtime.subscriptions.rebinding import Rebinding, Rhythm
from realtime.subscriptions.replay.bounds import ReplayBounds
from realtime.subscriptions.replay.context import ReplayContext
from realtime.subscriptions.replay.shared_changes import SharedChanges
from realtime.subscriptions.replay.snapshot import SnapshotReader
from realtime.subscriptions.replay.start import ReplayStart
from realtime.subscriptions.request import Request, Revoked
from realtime.subscriptions.subscriber import Subscribed, Subscriber
from realtime.topics.rights import TopicRights
from realtime.util.counters import Counters
from realtime.util.database_threads import in_database_thread
from realtime.util.fair_share import FairShare

logger = logging.getLogger("realtime.subscribers")

# A join is planned by what was known to be true of its user so many seconds ago or later. Later
# changes come by the log, and where nobody numbers it, users are read again after this time.
_FRESH_SECONDS = 1.0
# A plan of so many bindings, with so many characters of filters, is made on the event loop.
_FEW_BINDINGS = 4
_SHORT_FILTERS = 256
_STEADY = Rhythm()
_UNBOUNDED = ReplayBounds()


class SubscriptionManager:
    """All methods are called on one event loop."""

    def __init__(
        self,
        log: EventLog,
        reader: LogReader,
        watch: AccessWatch,
        counters: Counters | None = None,
        *,
        bounds: ReplayBounds = _UNBOUNDED,
        rhythm: Rhythm = _STEADY,
    ) -> None:
        self._log = log
        self._planners = Planners()
        #: The users of this process.
        self.users = KnownUsers(reader.alias, log)
        # Long plans, one at a time: short ones find a thread, and the interpreter, free.
        self._long_plans = FairShare(1)
        counters = Counters() if counters is None else counters
        #: Which tables decide access.
        self.watch = watch
        #: The sets behind selects.
        self.sets = LiveSetStore(reader.alias, log, watch)
        self.channels = Channels(
            ReplayContext(
                log=log,
                reader=reader,
                start=ReplayStart(log, reader, self._planners, bounds, counters),
                snapshots=SnapshotReader(reader.alias, watch, self.users, self._asked),
                sets=self.sets,
                changes=SharedChanges(counters),
                bounds=bounds,
                counters=counters,
            )
        )
        self.rebinding = Rebinding(
            self.channels, self.sets, watch, self._planners, self.users, rhythm
        )

    async def start(self) -> None:
        """Read which tables decide access. Raises what the database raises."""
        await in_database_thread(self.watch.look)
        await in_database_thread(self.users.captured)
        self.rebinding.begin()

    async def rights(self, request: Request) -> TopicRights:
        """What the subject may do on the request's private topic now.

        Raises Revoked, and what the database raises.
        """
        asked_at = time.monotonic()
        request = replace(request, bindings=())
        _, plan = await self._asked(request)
        if not plan.rights.join:
            # A join is refused only by permissions that were read after it came: a user who has
            # just been given the right may join at once. Refused joins share one reading.
            await asyncio.sleep(self._planners.pause(asked_at))
            _, plan = await self._asked(request, asked_at)
        return plan.rights

    async def add(self, subscriber: Subscriber, request: Request) -> Subscribed:
        """Bind and subscribe: from the returned position on, the subscriber gets all it may see.

        Bindings with `since` or `snapshot` get what these ask for first, by a task that goes on
        after the return. A subscriber that is here already is bound to the new subject; its live
        bindings begin anew if that subject sees other rows. Raises Revoked, and what the database
        raises; nothing changes then.
        """
        if not request.bindings and request.private is None and request.subject.user is None:
            # No change of permissions can concern it, nor one that was about an earlier subject.
            self.channels.remove(subscriber)
            return Subscribed(self._log.position, ())
        # Retains the sets of the plan until the subscriber does.
        work = object()
        try:
            request, plan = await self._planned(work, request)
            plan = self.channels.enter(subscriber, request, plan)
        finally:
            self.sets.release(work)
        return Subscribed(self._log.position, plan.problems, plan.rights, plan.hints)

    def decides(self, event: DatabaseEvent) -> bool:
        """Whether this change may alter what a subscriber may see."""
        table = event.relation.table
        return table in self.watch.tables or self.sets.reads(table)

    async def _asked(self, request: Request, since: float = 0.0) -> tuple[Request, Plan]:
        """The request with its subject as it is now, and its plan. Both are made of permissions
        that were read at `since` (monotonic seconds) or later, and after every change that this
        process has received. The user of a long-lived socket may have changed since its
        handshake."""

        while True:
            before = self.rebinding.generation_of(request)
            planner = self._planners.at_hand(since)
            if planner is None:
                planner = await self._planners.aget(since)
                self.users.needs(planner.permissions)
            asked = await self._with_user(planner, request, since)
            if any(binding.unread for binding in request.bindings):
                async with self._long_plans.slot(request.payer) as slot:
                    plan, took = await in_database_thread(_timed, asked, planner)
                    slot.charge(took)
            elif self._at_once(asked, planner):
                plan = asked.quick_plan(planner)
            else:
                plan = await in_database_thread(asked.plan, planner)
            if before == self.rebinding.generation_of(request):
                return asked, plan

    async def _with_user(self, planner: Planner, request: Request, since: float) -> Request:
        """The request with its subject as it is now; the planner knows then which permissions it
        holds, where that can be known."""
        subject, users = request.subject, self.users
        known = request.read == self.rebinding.generation
        if known and not since and planner.asks_nothing_of(subject):
            return request
        since = max(since, time.monotonic() - _FRESH_SECONDS)
        found = users.recall(subject, planner.permissions, since)
        if found is None:
            found = await users.know(subject, planner.permissions, since)
        if not known:
            renewed = await users.renewed(subject, found)
            if renewed is None:
                raise Revoked
            subject = renewed
        planner.learn(subject, found.held)
        return request if subject is request.subject else replace(request, subject=subject)

    def _at_once(self, request: Request, planner: Planner) -> bool:
        """Whether the plan is made on the event loop: without a query, without code of the project,
        and in less time than a change of threads takes."""
        subject = request.subject
        if subject.user is not None and not self.users.plain:
            return False
        return _is_short(request) and planner.is_quick(subject, request.bindings, request.private)

    async def _planned(self, work: object, request: Request) -> tuple[Request, Plan]:
        """As `_asked`; `work` retains the sets that the plan needs."""
        while True:
            before = self.rebinding.generation_of(request)
            asked, plan = await self._asked(request)
            await self.sets.acquire(work, plan.selects)
            if before == self.rebinding.generation_of(request):
                return asked, plan


def _timed(request: Request, planner: Planner) -> tuple[Plan, float]:
    """The plan, and how many seconds it took, without waiting for a thread."""
    began = time.monotonic()
    return request.plan(planner), time.monotonic() - began


def _is_short(request: Request) -> bool:
    """Whether planning takes less than a change of threads does."""
    bindings = request.bindings
    if len(bindings) > _FEW_BINDINGS or any(binding.table == ANY for binding in bindings):
        return False
    # Making the program of a regular expression takes milliseconds.
    if any("match" in binding.filter for binding in bindings):
        return False
    return sum(len(binding.filter) for binding in bindings) <= _SHORT_FILTERS
