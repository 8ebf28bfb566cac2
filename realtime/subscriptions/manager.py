"""The Subscription Manager of one process: what each channel asked for, bound to what its subject
may see now.

A channel that joins is planned in a database thread and enters on the event loop. Which channels
there are is in `channels`; bringing them to what is true now is done by `rebinding`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

from realtime.event_log.event import DatabaseEvent
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.channels import Channels
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.planner import Plan, Planners
from realtime.subscriptions.rebinding import Rebinding, Rhythm
from realtime.subscriptions.replay.context import ReplayBounds, ReplayContext
from realtime.subscriptions.replay.snapshot import SnapshotReader
from realtime.subscriptions.request import Request, Revoked
from realtime.subscriptions.subscriber import Subscribed, Subscriber
from realtime.topics.rights import TopicRights
from realtime.util.counters import Counters
from realtime.util.database_threads import in_database_thread

logger = logging.getLogger("realtime.subscribers")

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
        #: Which tables decide access.
        self.watch = watch
        #: The sets behind selects.
        self.sets = LiveSetStore(reader.alias, log, watch)
        self.channels = Channels(
            ReplayContext(
                log=log,
                reader=reader,
                sets=self.sets,
                pictures=SnapshotReader(reader.alias, watch),
                planners=self._planners,
                bounds=bounds,
                counters=Counters() if counters is None else counters,
            )
        )
        self.rebinding = Rebinding(self.channels, self.sets, watch, self._planners, rhythm)

    async def start(self) -> None:
        """Learn which tables decide. Raises what the database raises."""
        await in_database_thread(self.watch.look)
        self.rebinding.begin()

    async def rights(self, request: Request) -> TopicRights:
        """What the subject may do on the request's private topic now.

        Raises Revoked, and what the database raises.
        """
        asked_at = time.monotonic()
        request = replace(request, bindings=())
        _, plan = await self._asked(request)
        if not plan.rights.join:
            # No refusal by what was read before the join came: a user who was just let in joins
            # next. Refused joins share what is read for them, as others do.
            await asyncio.sleep(self._planners.pause(asked_at))
            _, plan = await self._asked(request, asked_at)
        return plan.rights

    async def add(self, port: Subscriber, request: Request) -> Subscribed:
        """Bind and subscribe: from the returned position on, the port gets all it may see.

        Where bindings say `since` or `snapshot`, what these bring is delivered first, by a task
        that runs on after the return. A port that is subscribed already is bound to the new
        subject; its live sets begin anew where that subject sees others. Raises Revoked, and what
        the database raises; nothing changes then.
        """
        if not request.bindings and request.private is None and request.subject.user is None:
            # No change of permissions could concern it.
            return Subscribed(self._log.position, ())
        # Holds the sets of the plan until the port does.
        work = object()
        try:
            request, plan = await self._planned(work, request)
            plan = self.channels.enter(port, request, plan)
        finally:
            self.sets.release(work)
        return Subscribed(self._log.position, plan.problems, plan.rights, plan.hints)

    def decides(self, event: DatabaseEvent) -> bool:
        """Whether this change may alter what a subscriber may see."""
        table = event.relation.table
        return table in self.watch.tables or self.sets.reads(table)

    async def _asked(self, request: Request, since: float = 0.0) -> tuple[Request, Plan]:
        """The request as its subject is now, and its plan, by permissions that no change known to
        this process has overtaken, read at `since` or later. A socket lives long: its user may
        have been changed since."""

        def planned(known: bool) -> tuple[Request, Plan]:
            planner = self._planners.get(since)
            asked = request
            if not known:
                subject = planner.renew([request.subject])[request.subject]
                if subject is None:
                    raise Revoked
                asked = replace(request, subject=subject)
            return asked, asked.plan(planner)

        while True:
            before = self.rebinding.generation_of(request)
            known = request.read == self.rebinding.generation
            found = await in_database_thread(planned, known)
            if before == self.rebinding.generation_of(request):
                return found

    async def _planned(self, work: object, request: Request) -> tuple[Request, Plan]:
        """As `_asked`, with the sets that the plan needs held by `work`."""
        while True:
            before = self.rebinding.generation_of(request)
            asked, plan = await self._asked(request)
            await self.sets.acquire(work, plan.selects)
            if before == self.rebinding.generation_of(request):
                return asked, plan
