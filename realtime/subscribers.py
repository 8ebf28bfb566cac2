"""The channels of one process: what each asked for, bound to what its subject may see now.

Plans in a database thread, subscribes on the event loop. When permissions change, everything is
bound anew before another event is handed out. A channel that has something to catch up with, or a
live set that other permissions change, is on its way in a replay and subscribed when it arrives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from auth_rls.subject import Subject
from realtime import conf
from realtime.counters import Counters
from realtime.effects import Position
from realtime.event import DatabaseEvent
from realtime.event_log import EventLog
from realtime.joins import Binding
from realtime.log_reader import DATABASE_ERRORS, LogReader
from realtime.plan import Plan, Planners, Watch
from realtime.pool import in_database_thread
from realtime.prepared import Outgoing
from realtime.protocol import Version
from realtime.replay import Means, Replay
from realtime.rights import ALL, Rights
from realtime.snapshot import Pictures, Request, Revoked
from realtime.subscription import AudienceKey, Delivery, Subscription, SubscriptionManager

logger = logging.getLogger("realtime.subscribers")

_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0
# Snapshots that are read or being sent at a time, each with its rows in memory.
_SNAPSHOTS = 16


class Port(Protocol):
    """One joined channel of a socket, as seen from here."""

    @property
    def id(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def version(self) -> Version: ...
    @property
    def deliver(self) -> Callable[[Outgoing], None]: ...
    def hear(self, frame: Outgoing, id_: str) -> None: ...
    async def writable(self) -> None: ...
    def resubscribed(self) -> None: ...
    def caught_up(self, at: Position) -> None: ...
    def snapshot(self, at: Position, count: int, complete: bool) -> None: ...
    def resync(self, at: Position) -> None: ...
    def revoked(self) -> None: ...
    def permitted(self, rights: Rights) -> None: ...


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The answer to a subscription: where it starts, why which binding cannot work, and what the
    subject may do on the topic."""

    at: Position
    problems: tuple[str | None, ...]
    rights: Rights = ALL


class Subscribers:
    """All methods are called on one event loop."""

    def __init__(
        self,
        log: EventLog,
        reader: LogReader,
        watch: Watch,
        replay_limit: int | None,
        counters: Counters | None = None,
    ) -> None:
        self._counters = Counters() if counters is None else counters
        self._log = log
        self._watch = watch
        self._planners = Planners()
        self._means = Means(
            log=log,
            reader=reader,
            pictures=Pictures(reader.alias, watch),
            planners=self._planners,
            on_failure=evaluation_failed,
            replay_events=replay_limit,
            snapshot_rows=conf.current().LIMITS.snapshot_rows,
            snapshots=asyncio.Semaphore(_SNAPSHOTS),
            counters=self._counters,
        )
        self._manager: SubscriptionManager[Port] = SubscriptionManager(evaluation_failed)
        self._requests: dict[Port, Request] = {}
        # What those that are live were last bound to.
        self._plans: dict[Port, Plan] = {}
        self._replays: dict[Port, tuple[Replay, asyncio.Task[None]]] = {}
        # Rises when permissions may have changed: a plan made before is not to be used after.
        self._generation = 0

    def __len__(self) -> int:
        """How many channels listen to changes."""
        return len(self._manager) + len(self._replays)

    @property
    def entries(self) -> int:
        """How many distinct predicates are subscribed to."""
        return self._manager.entries

    @property
    def evaluated(self) -> int:
        """How many predicates were put to an event so far."""
        return self._manager.evaluated

    @property
    def running_replays(self) -> int:
        """How many channels are on their way to the head."""
        return len(self._replays)

    @property
    def position(self) -> Position:
        """The last event this process has handed out."""
        return Position(self._log.epoch, self._log.seq)

    async def start(self) -> None:
        """Learn which tables decide. Raises what the database raises."""
        await in_database_thread(self._watch.look)

    def replaying(self, port: Port) -> bool:
        """Whether this channel has not been served all up to the position yet."""
        return port in self._replays

    def decides(self, event: DatabaseEvent) -> bool:
        """Whether this change may alter what somebody may see."""
        return event.relation.table in self._watch.tables

    def match(self, event: DatabaseEvent) -> list[Delivery[Port]]:
        """Every frame this event is worth to those who are live."""
        if event.old is None and event.new is None:
            self._emptied(event)
            return []
        return self._manager.match(event)

    def _emptied(self, event: DatabaseEvent) -> None:
        # A TRUNCATE names no rows: whoever listens to the table reads it anew.
        schema, table = event.relation.schema, event.relation.table
        for port in tuple(self._manager.on_table(schema, table)):
            request, plan = self._requests[port], self._plans[port]

            def on_it(binding: Binding) -> bool:
                return binding.covers(schema, table)

            self._start(Replay.anew(port, request, plan, self._means, on_it))

    def all(self) -> Iterator[Port]:
        yield from tuple(self._requests)

    async def rights(self, subject: Subject, topic: str) -> Rights:
        """What the subject may do on a private topic now. Raises what the database raises."""
        request = Request(subject, (), topic)
        rights = (await self._planned(request)).rights
        if not rights.join:
            # A no is not given by what was read a moment ago: who has just been let in joins next.
            self._planners.forget()
            rights = (await self._planned(request)).rights
        return rights

    async def add(self, port: Port, request: Request) -> Subscribed:
        """Bind and subscribe: from the returned position on the port gets all it may see.

        Where bindings say `since` or `snapshot`, what that brings is delivered first, by a task
        that runs on after the return. A port that is subscribed already is bound to the new
        subject; its live sets begin anew where that one sees others. Raises what the database
        raises; nothing changes then.
        """
        bindings = request.bindings
        if not bindings and request.private is None and request.subject.user is None:
            # Nothing can become of it that permissions would change.
            return Subscribed(self.position, ())
        plan = await self._planned(request)
        fresh = port not in self._requests
        self._requests[port] = request
        running = self._replays.get(port)
        if running is not None:
            running[0].request, running[0].plan = request, plan
        elif fresh and any(b.since is not None or b.snapshot is not None for b in bindings):
            self._start(Replay.from_cursors(port, request, plan, self._means))
        elif not fresh and self._plans[port].live != plan.live:
            self._start(Replay.anew(port, request, plan, self._means, lambda b: b.live))
        else:
            self._subscribe(port, plan)
        return Subscribed(self.position, plan.problems, plan.rights)

    def remove(self, port: Port) -> None:
        """Nothing is handed to this port any more (RT-S1)."""
        self._requests.pop(port, None)
        self._leave(port)

    async def rebind(self) -> None:
        """Bind everything to what the database says now; until then nothing moves on."""
        self._generation += 1
        self._planners.forget()
        wait = _RETRY_FIRST
        while True:
            requests = dict(self._requests)
            try:
                plans = await in_database_thread(_replan, self._watch, requests)
            except DATABASE_ERRORS as error:
                logger.warning(
                    "permissions cannot be read, nothing is delivered: %s",
                    error,
                    extra={"action": "rebind_failed"},
                )
                await asyncio.sleep(wait)
                wait = min(wait * 2, _RETRY_MOST)
                continue
            break
        for port, planned in plans.items():
            if self._requests.get(port) is not requests[port]:
                continue
            if planned is None:
                self.remove(port)
                port.revoked()
                continue
            request, plan = planned
            self._requests[port] = request
            if self._rebind(port, request, plan):
                port.resubscribed()
            if request.private is not None:
                port.permitted(plan.rights)

    def _rebind(self, port: Port, request: Request, plan: Plan) -> bool:
        """Whether anything changed."""
        running = self._replays.get(port)
        if running is not None:
            changed = running[0].plan.subscriptions != plan.subscriptions
            running[0].request, running[0].plan = request, plan
            return changed
        before = self._plans[port]
        if before.live != plan.live:
            self._start(Replay.moved(port, request, before, plan, self._means))
            return True
        return self._subscribe(port, plan)

    def _subscribe(self, port: Port, plan: Plan) -> bool:
        self._plans[port] = plan
        if not plan.subscriptions:
            before = port in self._manager
            self._manager.remove(port)
            return before
        key = AudienceKey(port.topic, port.version.value, plan.subscriptions)
        return self._manager.set(port, key)

    def _leave(self, port: Port) -> None:
        self._plans.pop(port, None)
        self._manager.remove(port)
        running = self._replays.pop(port, None)
        if running is not None:
            running[1].cancel()

    async def _planned(self, request: Request) -> Plan:
        while True:
            generation = self._generation
            plan = await in_database_thread(lambda: request.plan(self._planners.get()))
            if generation == self._generation:
                return plan

    # --- replays --------------------------------------------------------------------------------

    def _start(self, replay: Replay) -> None:
        """Send a port on its way; nothing else reaches it until it arrives."""
        port = replay.port
        self._leave(port)
        self._counters.replays += 1
        task = asyncio.create_task(replay.run(self._arrived), name="rowcast-replay")
        self._replays[port] = replay, task
        task.add_done_callback(lambda task: self._replay_done(replay, task))

    def _arrived(self, replay: Replay) -> None:
        """A replay has met the head: its port is live from here on, in the same breath."""
        running = self._replays.get(replay.port)
        if running is not None and running[0] is replay:
            del self._replays[replay.port]
            self._subscribe(replay.port, replay.plan)

    def _replay_done(self, replay: Replay, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        port = replay.port
        running = self._replays.get(port)
        if running is None or running[1] is not task:
            return
        if isinstance(task.exception(), Revoked):
            self.remove(port)
            port.revoked()
            return
        logger.warning("a replay failed: %s", task.exception(), extra={"action": "replay_failed"})
        # Rather live with a gap that is told than silent.
        self._arrived(replay)
        port.resync(self.position)


def _replan(watch: Watch, requests: dict[Port, Request]) -> dict[Port, tuple[Request, Plan] | None]:
    planner = watch.look()
    plans: dict[Port, tuple[Request, Plan] | None] = {}
    renewed = planner.renew(request.subject for request in requests.values())
    planner.prefetch(subject for subject in renewed.values() if subject is not None)
    for port, request in requests.items():
        subject = renewed[request.subject]
        if subject is None:
            plans[port] = None
        else:
            bound = replace(request, subject=subject)
            plans[port] = (bound, bound.plan(planner))
    return plans


def evaluation_failed(subscription: Subscription, error: Exception) -> None:
    """Log a predicate that raised: it denies to its own subscribers and disturbs nobody else."""
    logger.error(
        "a policy or filter on %s cannot be evaluated and denies: %s",
        subscription.table,
        error,
        extra={"action": "evaluation_failed"},
    )
