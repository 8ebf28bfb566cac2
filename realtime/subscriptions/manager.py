"""The channels of one process: what each asked for, bound to what its subject may see now.

The one door to them: who joins is planned in a database thread and enters on the event loop, events
are matched, and permissions and sets are followed before another event is handed out. Who listens
is `listening`'s, bringing them to what is true now is `rebinding`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from realtime import conf
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.subscriptions.access_watch import EVERYBODY, AccessWatch, RebindScope
from realtime.subscriptions.channels import Channels
from realtime.subscriptions.index import Delivery, Subscription
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.planner import Plan, Planners
from realtime.subscriptions.rebinding import Rebinding
from realtime.subscriptions.replay.context import ReplayContext
from realtime.subscriptions.replay.snapshot import SnapshotReader
from realtime.subscriptions.request import Request, Revoked
from realtime.subscriptions.subscriber import Subscribed, Subscriber
from realtime.topics.rights import TopicRights
from realtime.util.counters import Counters
from realtime.util.database_threads import in_database_thread

logger = logging.getLogger("realtime.subscribers")

# Snapshots that are read or being sent at a time, each with its rows in memory.
_SNAPSHOTS = 16


class SubscriptionManager:
    """All methods are called on one event loop."""

    def __init__(
        self,
        log: EventLog,
        reader: LogReader,
        watch: AccessWatch,
        replay_limit: int | None,
        counters: Counters | None = None,
    ) -> None:
        self._log = log
        self._watch = watch
        self._planners = Planners()
        self._sets = LiveSetStore(reader.alias, log, watch)
        self._listening = Channels(
            ReplayContext(
                log=log,
                reader=reader,
                sets=self._sets,
                pictures=SnapshotReader(reader.alias, watch),
                planners=self._planners,
                on_failure=evaluation_failed,
                replay_events=replay_limit,
                snapshot_rows=conf.current().LIMITS.snapshot_rows,
                snapshots=asyncio.Semaphore(_SNAPSHOTS),
                counters=Counters() if counters is None else counters,
            )
        )
        self._rebinding = Rebinding(self._listening, self._sets, watch, self._planners)

    def __len__(self) -> int:
        """How many channels listen to changes."""
        return len(self._listening)

    @property
    def entries(self) -> int:
        """How many distinct predicates are subscribed to."""
        return self._listening.manager.entries

    @property
    def evaluated(self) -> int:
        """How many predicates were put to an event so far."""
        return self._listening.manager.evaluated

    @property
    def running_replays(self) -> int:
        """How many channels are on their way to the head."""
        return self._listening.running_replays

    @property
    def position(self) -> Position:
        """The last event this process has handed out."""
        return Position(self._log.epoch, self._log.seq)

    async def start(self) -> None:
        """Learn which tables decide. Raises what the database raises."""
        await in_database_thread(self._watch.look)
        self._rebinding.begin()

    def all(self) -> Iterator[Subscriber]:
        return iter(self._listening.requests)

    def replaying(self, port: Subscriber) -> bool:
        """Whether this channel has not been served all up to the position yet."""
        return self._listening.replaying(port)

    # --- joining --------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """For `Request.read`: taken before the subject is."""
        return self._rebinding.generation

    async def rights(self, request: Request) -> TopicRights:
        """What the subject may do on the request's private topic now. Raises Revoked, and what the
        database raises."""
        request = replace(request, bindings=())
        _, plan = await self._asked(request)
        if not plan.rights.join:
            # A no is not given by what was read a moment ago: who has just been let in joins next.
            self._planners.forget()
            _, plan = await self._asked(request)
        return plan.rights

    async def add(self, port: Subscriber, request: Request) -> Subscribed:
        """Bind and subscribe: from the returned position on the port gets all it may see.

        Where bindings say `since` or `snapshot`, what that brings is delivered first, by a task
        that runs on after the return. A port that is subscribed already is bound to the new
        subject; its live sets begin anew where that one sees others. Raises Revoked, and what the
        database raises; nothing changes then.
        """
        if not request.bindings and request.private is None and request.subject.user is None:
            # Nothing can become of it that permissions would change.
            return Subscribed(self.position, ())
        # Holds the sets of the plan until the port does.
        work = object()
        try:
            request, plan = await self._planned(work, request)
            self._listening.enter(port, request, plan)
        finally:
            self._sets.drop(work)
        return Subscribed(self.position, plan.problems, plan.rights)

    def remove(self, port: Subscriber) -> None:
        """Nothing is handed to this port any more (RT-S1)."""
        self._listening.remove(port)

    async def _asked(self, request: Request) -> tuple[Request, Plan]:
        """What it gets, by permissions that nothing this process has heard of has overtaken; and
        the request of who the subject is by them. A socket lives long, and its user may have been
        somebody else when it came."""

        def planned(known: bool) -> tuple[Request, Plan]:
            planner = self._planners.get()
            asked = request
            if not known:
                subject = planner.renew([request.subject])[request.subject]
                if subject is None:
                    raise Revoked
                asked = replace(request, subject=subject)
            return asked, asked.plan(planner)

        while True:
            before = self._rebinding.standing(request)
            known = request.read == self.generation
            found = await in_database_thread(planned, known)
            if before == self._rebinding.standing(request):
                return found

    async def _planned(self, work: object, request: Request) -> tuple[Request, Plan]:
        """The same, with the sets that it needs held."""
        while True:
            before = self._rebinding.standing(request)
            asked, plan = await self._asked(request)
            await self._sets.need(work, plan.selects)
            if before == self._rebinding.standing(request):
                return asked, plan

    # --- events ---------------------------------------------------------------------------------

    def decides(self, event: DatabaseEvent) -> bool:
        """Whether this change may alter what somebody may see."""
        table = event.relation.table
        return table in self._watch.tables or self._sets.reads(table)

    def binds(self, event: DatabaseEvent) -> bool:
        """Whether it may do so otherwise than by moving a set."""
        return self._watch.binds(event)

    def scope(self, events: Iterable[DatabaseEvent]) -> RebindScope:
        """Whom these changes may concern."""
        return self._watch.scope(events)

    async def rebind(
        self, scope: RebindScope = EVERYBODY, ports: Collection[Subscriber] = ()
    ) -> None:
        """Bind whom it concerns, and these, to what the database says now; until then nothing
        moves on."""
        await self._rebinding.rebind(scope, ports)

    async def shift(self, event: DatabaseEvent) -> None:
        """Take the sets over this change, before it is matched."""
        await self._rebinding.shift(event)

    async def restart(self, at: Position) -> None:
        """Bind everything and read every set for another place, where the log goes on."""
        await self._rebinding.restart(at)

    def match(self, event: DatabaseEvent) -> Generator[None, None, list[Delivery[Subscriber]]]:
        """Every frame this event is worth to those who are live, in steps. Inside `still`."""
        return self._listening.match(event)

    def still(self) -> AbstractContextManager[None]:
        """Nobody is subscribed inside the block: who comes now has a later place in the log than
        the event that is handed out."""
        return self._listening.still()


def evaluation_failed(subscription: Subscription, error: Exception) -> None:
    """Log a predicate that raised: it denies to its own subscribers and disturbs nobody else."""
    logger.error(
        "a policy or filter on %s cannot be evaluated and denies: %s",
        subscription.table,
        error,
        extra={"action": "evaluation_failed"},
    )
