"""Who listens: the channels of one process, each live or on its way to being so.

Keeps what each was last bound to and hands it to the index, the sets and the replays together, so
that no channel is in two places at once. Asks no database and decides no permission.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from typing import cast

from auth_rls.predicates.predicate import Select
from auth_rls.sets.live_set import SetDelta
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.protocol.join import Binding
from realtime.subscriptions.index import AudienceKey, Delivery, SubscriptionIndex
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.context import ReplayContext
from realtime.subscriptions.replay.replay import Replay
from realtime.subscriptions.request import Request, Revoked
from realtime.subscriptions.requests import Requests
from realtime.subscriptions.subscriber import Subscriber

logger = logging.getLogger("realtime.listening")


class Channels:
    """All methods are called on one event loop."""

    def __init__(self, means: ReplayContext) -> None:
        self._means = means
        self._sets = means.sets
        self.requests: Requests[Subscriber] = Requests()
        self.manager: SubscriptionIndex[Subscriber] = SubscriptionIndex(
            means.on_failure, self._sets.members
        )
        # What those that are live were last bound to.
        self._plans: dict[Subscriber, Plan] = {}
        self._replays: dict[Subscriber, tuple[Replay, asyncio.Task[None]]] = {}
        # Those who subscribe while an event is matched and handed out; None at other times.
        self._waiting: dict[Subscriber, Plan] | None = None
        # Whose sets have shifted and who was not told yet.
        self._shifted: dict[Subscriber, dict[Select, None]] = {}
        # Of those, by which shifts the rows that the client holds are behind. Not of one on its
        # way: it looks for itself.
        self._behind: dict[Subscriber, dict[Select, SetDelta]] = {}

    def __len__(self) -> int:
        """How many channels listen to changes."""
        return len(self.manager) + len(self._replays)

    @property
    def running_replays(self) -> int:
        """How many channels are on their way to the head."""
        return len(self._replays)

    def replaying(self, port: Subscriber) -> bool:
        """Whether this channel has not been served all up to the position yet."""
        return port in self._replays

    def plan_of(self, port: Subscriber) -> Plan:
        """What it is bound to, be it on its way or live."""
        running = self._replays.get(port)
        return self._plans[port] if running is None else running[0].plan

    # --- coming and going -----------------------------------------------------------------------

    def enter(self, port: Subscriber, request: Request, plan: Plan) -> None:
        """A new channel, or one that asks anew, maybe as another subject."""
        fresh = port not in self.requests
        bindings = request.bindings
        self.requests[port] = request
        running = self._replays.get(port)
        if running is not None:
            self._redirect(running[0], request, plan)
        elif fresh and any(b.since is not None or b.snapshot is not None for b in bindings):
            self._start(Replay.from_cursors(port, request, plan, self._means))
        elif not fresh and self._plans[port].live != plan.live:
            self._start(Replay.anew(port, request, plan, self._means, lambda b: b.live))
        else:
            self._subscribe(port, plan)

    def bind(self, port: Subscriber, request: Request, plan: Plan) -> bool:
        """One that is known, bound to other permissions. Whether that changed anything."""
        self.requests[port] = request
        running = self._replays.get(port)
        if running is not None:
            changed = running[0].plan.subscriptions != plan.subscriptions
            self._redirect(running[0], request, plan)
            return changed
        before = self._plans[port]
        if before.live != plan.live:
            shifts = self._behind.get(port)
            held = {p: self._sets.resolve(item.rls, shifts) for p, item in before.live.items()}
            self._start(Replay.moved(port, request, held, plan, self._means))
            return True
        return self._subscribe(port, plan)

    def remove(self, port: Subscriber) -> None:
        """Nothing is handed to this port any more (RT-S1)."""
        self.requests.discard(port)
        self._shifted.pop(port, None)
        self._leave(port)
        self._sets.drop(port)

    # --- events ---------------------------------------------------------------------------------

    def match(self, event: DatabaseEvent) -> Generator[None, None, list[Delivery[Subscriber]]]:
        """Every frame this event is worth to those who are live, in steps. Inside `still`."""
        if event.old is None and event.new is None:
            yield from self._emptied(event)
            return []
        return (yield from self.manager.matching(event))

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

    def _emptied(self, event: DatabaseEvent) -> Generator[None, None, None]:
        # A TRUNCATE names no rows: whoever listens to the table reads it anew.
        schema, table = event.relation.schema, event.relation.table

        def on_it(binding: Binding) -> bool:
            return binding.covers(schema, table)

        for port in tuple(self.manager.on_table(schema, table)):
            # Who left meanwhile is left alone, and who was sent on his way reads it anyway.
            if port in self._plans:
                request, plan = self.requests[port], self._plans[port]
                self._start(Replay.anew(port, request, plan, self._means, on_it))
            yield

    # --- sets -----------------------------------------------------------------------------------

    def follow(self, select: Select, shift: SetDelta) -> None:
        """A set has shifted: events are matched by its new values from here on. In one breath with
        the set. Whoever hangs on it is told later, by `tell`."""
        self.manager.follow(select, shift)
        for holder in self._sets.holders(select):
            port = cast(Subscriber, holder)
            if port in self.requests:
                self._shifted.setdefault(port, {})[select] = None
                if port in self._plans:
                    self._behind.setdefault(port, {})[select] = shift

    @property
    def shifted(self) -> Collection[Subscriber]:
        """Whoever `tell` is to be called for."""
        return tuple(self._shifted)

    def tell(self, port: Subscriber) -> bool:
        """Bring a channel to its new sets. Whether it has, perhaps, other rights on a topic by
        them. One that was not shifted, or has left, is not touched."""
        selects = self._shifted.pop(port, None)
        if selects is None:
            return False
        plan = self.plan_of(port)
        entitled = not selects.keys().isdisjoint(plan.topic_selects)
        shifts = self._behind.pop(port, None)
        if selects.keys().isdisjoint(plan.row_selects):
            return entitled
        live = plan.live
        if live and shifts is not None:
            held = {place: self._sets.resolve(item.rls, shifts) for place, item in live.items()}
            if any(held[place] != self._sets.resolve(item.rls) for place, item in live.items()):
                self._start(Replay.moved(port, self.requests[port], held, plan, self._means))
        port.resubscribed()
        return entitled

    # --- live, or on its way --------------------------------------------------------------------

    def _redirect(self, replay: Replay, request: Request, plan: Plan) -> None:
        replay.request, replay.plan = request, plan
        self._sets.hold(replay.port, plan.selects)

    def _subscribe(self, port: Subscriber, plan: Plan) -> bool:
        self._plans[port] = plan
        if self._waiting is not None:
            # What it has now it keeps until then.
            self._waiting[port] = plan
            now = [item for item in self._sets.held(port) if item not in plan.selects]
            self._sets.hold(port, (*plan.selects, *now))
            return False
        if plan.subscriptions:
            key = AudienceKey(port.topic, port.version.value, plan.subscriptions)
            changed = self.manager.set(port, key)
        else:
            changed = port in self.manager
            self.manager.remove(port)
        # Not before: the index looks into the sets of what it lets go.
        self._sets.hold(port, plan.selects)
        return changed

    def _leave(self, port: Subscriber) -> None:
        self._plans.pop(port, None)
        self._behind.pop(port, None)
        if self._waiting is not None:
            self._waiting.pop(port, None)
        self.manager.remove(port)
        running = self._replays.pop(port, None)
        if running is not None:
            running[1].cancel()

    def _start(self, replay: Replay) -> None:
        """Send a port on its way; nothing else reaches it until it arrives."""
        port = replay.port
        self._leave(port)
        self._means.counters.replays += 1
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
        port.resync(Position(self._means.log.epoch, self._means.log.seq))
