"""The channels of one process: what each asked for, bound to what its subject may see now.

Plans in a database thread, subscribes on the event loop. When permissions change, whoever that may
concern is bound anew before another event is handed out; when the set behind a select does, it is
moved and nobody is bound. A channel that has something to catch up with, or a live set that other
permissions change, is on its way in a replay and subscribed when it arrives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, cast

from auth_rls.lookups import Shift
from auth_rls.predicate import Select
from auth_rls.subject import Subject
from realtime import conf
from realtime.counters import Counters
from realtime.effects import Position
from realtime.event import DatabaseEvent
from realtime.event_log import EventLog
from realtime.joins import Binding
from realtime.log_reader import DATABASE_ERRORS, LogReader
from realtime.means import Means
from realtime.plan import Plan, Planners
from realtime.pool import in_database_thread
from realtime.prepared import Outgoing, Sink
from realtime.protocol import Version
from realtime.replay import Replay
from realtime.requests import Requests
from realtime.rights import ALL, Rights
from realtime.sets import Sets
from realtime.snapshot import Pictures, Request, Revoked
from realtime.subscription import AudienceKey, Delivery, Subscription, SubscriptionManager
from realtime.watch import EVERYBODY, Scope, Watch

logger = logging.getLogger("realtime.subscribers")

T = TypeVar("T")

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
    def outlet(self) -> Sink: ...
    @property
    def casts(self) -> Sink: ...
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
        self._sets = Sets(reader.alias, log, watch)
        self._means = Means(
            log=log,
            reader=reader,
            sets=self._sets,
            pictures=Pictures(reader.alias, watch),
            planners=self._planners,
            on_failure=evaluation_failed,
            replay_events=replay_limit,
            snapshot_rows=conf.current().LIMITS.snapshot_rows,
            snapshots=asyncio.Semaphore(_SNAPSHOTS),
            counters=self._counters,
        )
        self._manager: SubscriptionManager[Port] = SubscriptionManager(
            evaluation_failed, self._sets.members
        )
        self._requests: Requests[Port] = Requests()
        # What those that are live were last bound to.
        self._plans: dict[Port, Plan] = {}
        self._replays: dict[Port, tuple[Replay, asyncio.Task[None]]] = {}
        # Rises when permissions may have changed: a plan made before is not to be used after.
        self._generation = 0
        # Rises when a set may have.
        self._moved = 0
        # Those who subscribe while an event is matched and handed out; None at other times.
        self._waiting: dict[Port, Plan] | None = None

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
        table = event.relation.table
        return table in self._watch.tables or self._sets.reads(table)

    def binds(self, event: DatabaseEvent) -> bool:
        """Whether it may do so otherwise than by moving a set."""
        return self._watch.binds(event)

    def scope(self, events: Iterable[DatabaseEvent]) -> Scope:
        """Whom these changes may concern."""
        return self._watch.scope(events)

    def match(self, event: DatabaseEvent) -> Generator[None, None, list[Delivery[Port]]]:
        """Every frame this event is worth to those who are live, in steps. Inside `still`."""
        if event.old is None and event.new is None:
            self._emptied(event)
            return []
        return (yield from self._manager.matching(event))

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nobody is subscribed inside the block: who comes now has a later place in the log than
        the event that is handed out."""
        self._waiting = {}
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            for port, plan in waiting.items():
                self._subscribe(port, plan)

    def _emptied(self, event: DatabaseEvent) -> None:
        # A TRUNCATE names no rows: whoever listens to the table reads it anew.
        schema, table = event.relation.schema, event.relation.table
        for port in tuple(self._manager.on_table(schema, table)):
            request, plan = self._requests[port], self._plans[port]

            def on_it(binding: Binding) -> bool:
                return binding.covers(schema, table)

            self._start(Replay.anew(port, request, plan, self._means, on_it))

    def all(self) -> Iterator[Port]:
        return iter(self._requests)

    async def rights(self, subject: Subject, topic: str) -> Rights:
        """What the subject may do on a private topic now. Raises what the database raises."""
        request = Request(subject, (), topic)
        rights = (await self._asked(request)).rights
        if not rights.join:
            # A no is not given by what was read a moment ago: who has just been let in joins next.
            self._planners.forget()
            rights = (await self._asked(request)).rights
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
        # Holds the sets of the plan until the port does.
        work = object()
        try:
            plan = await self._planned(work, request)
            fresh = port not in self._requests
            self._requests[port] = request
            running = self._replays.get(port)
            if running is not None:
                self._redirect(running[0], request, plan)
            elif fresh and any(b.since is not None or b.snapshot is not None for b in bindings):
                self._start(Replay.from_cursors(port, request, plan, self._means))
            elif not fresh and self._plans[port].live != plan.live:
                self._start(Replay.anew(port, request, plan, self._means, lambda b: b.live))
            else:
                self._subscribe(port, plan)
        finally:
            self._sets.drop(work)
        return Subscribed(self.position, plan.problems, plan.rights)

    def remove(self, port: Port) -> None:
        """Nothing is handed to this port any more (RT-S1)."""
        self._requests.discard(port)
        self._leave(port)
        self._sets.drop(port)

    # --- permissions ----------------------------------------------------------------------------

    async def shift(self, event: DatabaseEvent) -> None:
        """Take the sets over this change, before it is matched."""
        self._moved += 1
        self._planners.forget()
        shifts = self._sets.apply(event)
        entitled = self._shifted(shifts.of)
        if shifts.stale:
            entitled |= self._shifted(
                await self._insist(lambda: self._sets.read_again(shifts.stale))
            )
        if entitled:
            # What somebody may do on a topic has no place in the log; it is read as it is now.
            await self.rebind(Scope(), entitled)

    def _shifted(self, shifts: Mapping[Select, Shift]) -> set[Port]:
        """Bring to their new sets whoever hangs on those that shifted, and nobody else. Who has
        other rights on a topic by them, perhaps, is returned."""
        for select, shift in shifts.items():
            self._manager.follow(select, shift)
        holders = {holder: None for select in shifts for holder in self._sets.holders(select)}
        entitled: set[Port] = set()
        for port in [cast(Port, holder) for holder in holders if holder in self._requests]:
            plan = self._plan_of(port)
            if not shifts.keys().isdisjoint(plan.topic_selects):
                entitled.add(port)
            if shifts.keys().isdisjoint(plan.row_selects):
                continue
            # One that is on its way looks for itself.
            if port not in self._replays:
                live = plan.live
                held = {p: self._sets.resolve(item.rls, shifts) for p, item in live.items()}
                if any(held[p] != self._sets.resolve(item.rls) for p, item in live.items()):
                    request = self._requests[port]
                    self._start(Replay.moved(port, request, held, plan, self._means))
            port.resubscribed()
        return entitled

    async def restart(self, at: Position) -> None:
        """Bind everything and read every set for another place, where the log goes on."""
        self._sets.restart(at)
        await self.rebind(Scope(everybody=True, lapsed=True))

    async def rebind(self, scope: Scope = EVERYBODY, ports: Collection[Port] = ()) -> None:
        """Bind whom it concerns, and these, to what the database says now; until then nothing
        moves on."""
        self._generation += 1
        self._planners.forget()
        work = object()
        try:
            await self._rebind(scope, ports, work)
        finally:
            self._sets.drop(work)

    async def _rebind(self, scope: Scope, ports: Collection[Port], work: object) -> None:
        async def bound() -> tuple[dict[Port, Request], dict[Port, tuple[Request, Plan] | None]]:
            asked = self._concerned(scope, ports)
            plans = await in_database_thread(_replan, self._watch, asked, scope, ports)
            made = (planned[1] for planned in plans.values() if planned is not None)
            needed = dict.fromkeys(select for plan in made for select in plan.selects)
            await self._sets.need(work, needed)
            return {port: request for port, (request, _) in asked.items()}, plans

        requests, plans = await self._insist(bound)
        for port, planned in plans.items():
            if self._requests.get(port) is not requests[port]:
                continue
            if planned is None:
                self.remove(port)
                port.revoked()
                continue
            request, plan = planned
            self._requests[port] = request
            if self._bind(port, request, plan):
                port.resubscribed()
            if request.private is not None:
                port.permitted(plan.rights)
        if scope.lapsed:
            self._sets.drop(work)
            entitled = self._shifted(await self._insist(self._sets.read_again))
            if entitled:
                await self.rebind(Scope(), entitled)

    def _concerned(self, scope: Scope, ports: Collection[Port]) -> dict[Port, tuple[Request, Plan]]:
        if scope.everybody or scope.policies:
            found = list(self._requests)
        else:
            found = [port for port in ports if port in self._requests]
            found += self._requests.of_users(scope.users)
        return {port: (self._requests[port], self._plan_of(port)) for port in found}

    def _plan_of(self, port: Port) -> Plan:
        running = self._replays.get(port)
        return self._plans[port] if running is None else running[0].plan

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

    def _bind(self, port: Port, request: Request, plan: Plan) -> bool:
        """Whether anything changed."""
        running = self._replays.get(port)
        if running is not None:
            changed = running[0].plan.subscriptions != plan.subscriptions
            self._redirect(running[0], request, plan)
            return changed
        before = self._plans[port]
        if before.live != plan.live:
            held = {place: self._sets.resolve(item.rls) for place, item in before.live.items()}
            self._start(Replay.moved(port, request, held, plan, self._means))
            return True
        return self._subscribe(port, plan)

    def _redirect(self, replay: Replay, request: Request, plan: Plan) -> None:
        replay.request, replay.plan = request, plan
        self._sets.hold(replay.port, plan.selects)

    def _subscribe(self, port: Port, plan: Plan) -> bool:
        self._plans[port] = plan
        if self._waiting is not None:
            # What it has now it keeps until then.
            self._waiting[port] = plan
            now = [item for item in self._sets.held(port) if item not in plan.selects]
            self._sets.hold(port, (*plan.selects, *now))
            return False
        if plan.subscriptions:
            key = AudienceKey(port.topic, port.version.value, plan.subscriptions)
            changed = self._manager.set(port, key)
        else:
            changed = port in self._manager
            self._manager.remove(port)
        # Not before: the index looks into the sets of what it lets go.
        self._sets.hold(port, plan.selects)
        return changed

    def _leave(self, port: Port) -> None:
        self._plans.pop(port, None)
        if self._waiting is not None:
            self._waiting.pop(port, None)
        self._manager.remove(port)
        running = self._replays.pop(port, None)
        if running is not None:
            running[1].cancel()

    async def _asked(self, request: Request) -> Plan:
        """What it gets, by permissions that nothing this process has heard of has overtaken."""
        while True:
            before = self._standing(request)
            plan = await in_database_thread(lambda: request.plan(self._planners.get()))
            if before == self._standing(request):
                return plan

    async def _planned(self, work: object, request: Request) -> Plan:
        """The same, with the sets that it needs held."""
        while True:
            before = self._standing(request)
            plan = await self._asked(request)
            await self._sets.need(work, plan.selects)
            if before == self._standing(request):
                return plan

    def _standing(self, request: Request) -> tuple[int, int]:
        # Rights on a topic are read with the sets behind them; verdicts on rows look into the sets.
        return self._generation, 0 if request.private is None else self._moved

    # --- replays --------------------------------------------------------------------------------

    def _start(self, replay: Replay) -> None:
        """Send a port on its way; nothing else reaches it until it arrives."""
        port = replay.port
        self._leave(port)
        self._counters.replays += 1
        self._sets.hold(port, replay.plan.selects)
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


def _replan(
    watch: Watch,
    asked: Mapping[Port, tuple[Request, Plan]],
    scope: Scope,
    ports: Collection[Port],
) -> dict[Port, tuple[Request, Plan] | None]:
    planner = watch.look()
    requests = {
        port: request
        for port, (request, plan) in asked.items()
        if scope.everybody
        or port in ports
        or str(request.subject.user_id) in scope.users
        or not planner.agrees(plan)
    }
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
