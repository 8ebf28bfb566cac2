"""The subscribed channels of one process, each live or on its way to being so.

One record per channel says what it asked for, what it is bound to and what it has not been brought
to yet. It is handed to the index, the sets and the replays together, so that no channel is in two
of them at once. Makes no query and decides no permission.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from auth_rls.predicates.predicate import Predicate, Select
from auth_rls.sets.live_set import SetDelta
from realtime.event_log.event import DatabaseEvent
from realtime.protocol.join import Binding
from realtime.subscriptions.filter_ledger import CONNECTION, FilterLedger, Owner
from realtime.subscriptions.index import (
    AudienceKey,
    Delivery,
    Payers,
    Subscription,
    SubscriptionIndex,
)
from realtime.subscriptions.judgement import TOO_COSTLY
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.context import ReplayContext, evaluation_failed
from realtime.subscriptions.replay.replay import Replay
from realtime.subscriptions.replay.snapshot import Place
from realtime.subscriptions.request import Request, Revoked
from realtime.subscriptions.subscriber import Subscriber

logger = logging.getLogger("realtime.listening")


@dataclass(eq=False, slots=True)
class _Channel:
    """What is known of one channel. It is live unless a replay runs."""

    request: Request
    plan: Plan
    replay: Replay | None = None
    task: asyncio.Task[None] | None = None
    #: Selects whose sets have shifted since the channel was brought to them.
    shifted: dict[Select, None] | None = None
    #: Of these, how far the rows that the client holds are behind. Kept while the channel is live
    #: alone: a replay compares what the client holds by itself.
    behind: dict[Select, SetDelta] | None = None


class Channels:
    """All methods are called on one event loop."""

    def __init__(self, means: ReplayContext) -> None:
        self._means = means
        self._sets = means.sets
        #: The subscriptions of the channels that are live.
        self.index: SubscriptionIndex[Subscriber] = SubscriptionIndex(
            evaluation_failed,
            self._sets.members,
            self._too_costly,
            payers_of=self._payers_of,
        )
        # What the filters of all channels hold.
        self._filters = FilterLedger()
        # By channel the bindings whose filters cost too much on the event at hand.
        self._costly: dict[Subscriber, set[int]] = {}
        self._channels: dict[Subscriber, _Channel] = {}
        # By the key of the subject's user, as text.
        self._of_user: dict[str, dict[Subscriber, None]] = {}
        #: How many channels are on their way to the head of the log.
        self.running_replays = 0
        # The channels whose `shifted` is not None.
        self._shifted: dict[Subscriber, None] = {}
        # Channels to be subscribed when the event at hand is delivered; None between two events.
        self._waiting: dict[Subscriber, None] | None = None

    def __contains__(self, port: object) -> bool:
        return port in self._channels

    def __iter__(self) -> Iterator[Subscriber]:
        """Every known channel. Channels may come and go meanwhile."""
        return iter(tuple(self._channels))

    @property
    def subscribed(self) -> int:
        """How many channels are subscribed to changes, or on their way to it."""
        return len(self.index) + self.running_replays

    def replaying(self, port: Subscriber) -> bool:
        """Whether this channel has not been served up to the position of the process yet."""
        channel = self._channels.get(port)
        return channel is not None and channel.replay is not None

    def request_of(self, port: Subscriber) -> Request | None:
        """What the channel asked for; None for one that is not known."""
        channel = self._channels.get(port)
        return None if channel is None else channel.request

    def plan_of(self, port: Subscriber) -> Plan:
        """What the channel is bound to. Raises KeyError for one that is not known."""
        return self._channels[port].plan

    def of_users(self, keys: Iterable[str]) -> Iterator[Subscriber]:
        """The channels whose subjects are these users, named by their keys as text."""
        for key in keys:
            yield from self._of_user.get(key, ())

    # --- coming and going -----------------------------------------------------------------------

    def enter(self, port: Subscriber, request: Request, plan: Plan) -> Plan:
        """Take a new channel, or one that asks anew, perhaps as another subject. Returns what is
        left of the plan: bindings whose filters are too many are refused."""
        request, plan = self._charged(port, request, plan)
        self._enter(port, request, plan)
        return plan

    def _charged(self, port: Subscriber, request: Request, plan: Plan) -> tuple[Request, Plan]:
        owners = [Owner(port.connection, CONNECTION)]
        if request.owner is not None:
            owners.append(request.owner)
        excess = self._filters.charge(port, owners, plan.filters)
        if not excess:
            return request, plan
        for found in excess.values():
            self._means.counters.limits[f"filter_{found.what}/{found.bounds.scope}"] += 1
        problems = {
            binding.id: binding.failed(f"ERROR P0001 (raise_exception) {excess[binding.id]}")
            for binding in request.bindings
            if binding.id in excess
        }
        request = request.refused(problems)
        return request, plan.refused(request.bindings)

    def _payers_of(self, port: Subscriber) -> Payers:
        owner = self._channels[port].request.owner
        return Payers(port.connection, port.connection if owner is None else owner.key)

    def _enter(self, port: Subscriber, request: Request, plan: Plan) -> None:
        channel = self._channels.get(port)
        if channel is None:
            channel = self._channels[port] = _Channel(request, plan)
            self._name(port, request)
            if any(b.since is not None or b.snapshot is not None for b in request.bindings):
                self._start(port, Replay.from_cursors(port, request, plan, self._means))
            else:
                self._subscribe(port, channel)
            return
        before = channel.plan
        self._replace(port, channel, request, plan)
        if channel.replay is not None:
            self._redirect(port, channel, channel.replay)
        elif before.live != plan.live:
            self._start(port, Replay.anew(port, request, plan, self._means, lambda b: b.live))
        else:
            self._subscribe(port, channel)

    def bind(self, port: Subscriber, request: Request, plan: Plan) -> bool:
        """Bind a known channel to other permissions. Returns whether that changed anything."""
        channel = self._channels[port]
        before = channel.plan
        self._replace(port, channel, request, plan)
        if channel.replay is not None:
            self._redirect(port, channel, channel.replay)
            return before.subscriptions != plan.subscriptions
        if before.live != plan.live:
            held = self._held(before, channel.behind)
            self._start(port, Replay.moved(port, request, held, plan, self._means))
            return True
        return self._subscribe(port, channel)

    def remove(self, port: Subscriber) -> None:
        """Forget a channel. Nothing is delivered to it from here on (RT-S1)."""
        channel = self._channels.get(port)
        if channel is None:
            return
        self._leave(port, channel)
        self._unname(port, channel.request)
        self._shifted.pop(port, None)
        del self._channels[port]
        self._sets.release(port)
        self._filters.release(port)

    def _too_costly(self, port: Subscriber, subscription: Subscription) -> None:
        self._costly.setdefault(port, set()).add(subscription.id)

    def end(self, port: Subscriber, ids: Collection[int]) -> None:
        """End these bindings, whose filters cost more than is allowed; the client is notified. No
        change of permissions brings them back, only another join. Does nothing to a channel that
        has left."""
        channel = self._channels.get(port)
        if channel is None:
            return
        self._filters.release(port, ids)
        request = channel.request.ended(ids, TOO_COSTLY)
        self._replace(port, channel, request, channel.plan.without(ids))
        if channel.replay is not None:
            self._redirect(port, channel, channel.replay)
        else:
            self._subscribe(port, channel)
        for binding in request.bindings:
            if binding.id in ids and binding.error is not None:
                port.binding_ended(binding.error)

    def _replace(self, port: Subscriber, channel: _Channel, request: Request, plan: Plan) -> None:
        self._unname(port, channel.request)
        channel.request, channel.plan = request, plan
        self._name(port, request)

    def _name(self, port: Subscriber, request: Request) -> None:
        if request.subject.user_id is not None:
            self._of_user.setdefault(str(request.subject.user_id), {})[port] = None

    def _unname(self, port: Subscriber, request: Request) -> None:
        if request.subject.user_id is None:
            return
        key = str(request.subject.user_id)
        del self._of_user[key][port]
        if not self._of_user[key]:
            del self._of_user[key]

    # --- events ---------------------------------------------------------------------------------

    def matching(
        self, event: DatabaseEvent, found: list[Delivery[Subscriber]]
    ) -> Generator[None, None, None]:
        """Append to `found` every frame that this event is worth to the channels that are live.

        A generator: the loop may run other tasks at each step. Inside `frozen`.
        """
        if event.old is None and event.new is None:
            return self._emptied(event)
        return self.index.matching(event, found)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No channel is subscribed inside the block: a channel that comes meanwhile has a later
        position in the log than the event that is delivered."""
        self._waiting = {}
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            for port in waiting:
                self._subscribe(port, self._channels[port])
            costly, self._costly = self._costly, {}
            for port, ids in costly.items():
                self.end(port, ids)

    def _emptied(self, event: DatabaseEvent) -> Generator[None, None, None]:
        # A TRUNCATE names no rows: every channel that is subscribed to the table reads it anew.
        schema, table = event.relation.schema, event.relation.table

        def on_it(binding: Binding) -> bool:
            return binding.covers(schema, table)

        for port in tuple(self.index.on_table(schema, table)):
            channel = self._channels.get(port)
            # A channel may have left meanwhile; a replay that began reads the table anyway.
            if channel is not None and channel.replay is None:
                replay = Replay.anew(port, channel.request, channel.plan, self._means, on_it)
                self._start(port, replay)
            yield

    # --- sets -----------------------------------------------------------------------------------

    def follow(self, select: Select, shift: SetDelta) -> None:
        """A set has shifted: events are matched by its new values from here on. To be called
        before anything is awaited; `apply_shifts` brings the channels to it later."""
        self.index.follow(select, shift)
        for holder in self._sets.holders(select):
            port = cast(Subscriber, holder)
            channel = self._channels.get(port)
            if channel is None:
                continue
            if channel.shifted is None:
                channel.shifted = {}
                self._shifted[port] = None
            channel.shifted[select] = None
            if channel.replay is None:
                if channel.behind is None:
                    channel.behind = {}
                channel.behind[select] = shift

    @property
    def shifted(self) -> Collection[Subscriber]:
        """The channels that `apply_shifts` is to be called for."""
        return tuple(self._shifted)

    def apply_shifts(self, port: Subscriber) -> bool:
        """Bring a channel to its new sets. Returns whether its rights on a topic may have changed
        by them. Does nothing to a channel whose sets did not shift, or that has left."""
        channel = self._channels.get(port)
        if channel is None or channel.shifted is None:
            return False
        del self._shifted[port]
        selects, channel.shifted = channel.shifted, None
        behind, channel.behind = channel.behind, None
        plan = channel.plan
        entitled = not selects.keys().isdisjoint(plan.topic_selects)
        if selects.keys().isdisjoint(plan.row_selects):
            return entitled
        if plan.live and behind is not None:
            held = self._held(plan, behind)
            if held != self._held(plan):
                self._start(port, Replay.moved(port, channel.request, held, plan, self._means))
        port.resubscribed()
        return entitled

    def _held(
        self, plan: Plan, behind: dict[Select, SetDelta] | None = None
    ) -> dict[Place, Predicate]:
        """The verdicts of the live sets with the values of now, or of before these shifts."""
        return {key: self._sets.resolve(item.rls, behind) for key, item in plan.live.items()}

    # --- live, or on its way --------------------------------------------------------------------

    def _redirect(self, port: Subscriber, channel: _Channel, replay: Replay) -> None:
        replay.request, replay.plan = channel.request, channel.plan
        self._sets.retain(port, channel.plan.selects)

    def _subscribe(self, port: Subscriber, channel: _Channel) -> bool:
        plan = channel.plan
        if self._waiting is not None:
            self._waiting[port] = None
            # What the channel has now, it keeps until then.
            now = [item for item in self._sets.held(port) if item not in plan.selects]
            self._sets.retain(port, (*plan.selects, *now))
            return False
        if plan.subscriptions:
            frame = port.change_frame
            key = AudienceKey(port.topic, port.version.value, plan.subscriptions, frame)
            changed = self.index.set(port, key)
        else:
            changed = port in self.index
            self.index.remove(port)
        # Not before: the index looks into the sets of what it removes.
        self._sets.retain(port, plan.selects)
        return changed

    def _leave(self, port: Subscriber, channel: _Channel) -> None:
        """Take a channel out of the index, or off its way."""
        channel.behind = None
        if self._waiting is not None:
            self._waiting.pop(port, None)
        self.index.remove(port)
        if channel.task is not None:
            self._end_replay(channel).cancel()

    def _start(self, port: Subscriber, replay: Replay) -> None:
        """Send a channel on its way; nothing else is delivered to it until it arrives."""
        channel = self._channels[port]
        self._leave(port, channel)
        self._means.counters.replays += 1
        self._sets.retain(port, replay.plan.selects)
        run = replay.run(self._arrived, self.end)
        task = asyncio.create_task(run, name="rowcast-replay")
        channel.replay, channel.task = replay, task
        self.running_replays += 1
        task.add_done_callback(lambda task: self._replay_done(port, replay, task))

    def _end_replay(self, channel: _Channel) -> asyncio.Task[None]:
        task = channel.task
        assert task is not None
        channel.replay = channel.task = None
        self.running_replays -= 1
        return task

    def _arrived(self, replay: Replay) -> None:
        """A replay has met the head: its channel is live from here on. Nothing was awaited since
        the replay compared the two."""
        channel = self._channels.get(replay.port)
        if channel is not None and channel.replay is replay:
            self._end_replay(channel)
            self._subscribe(replay.port, channel)

    def _replay_done(self, port: Subscriber, replay: Replay, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        channel = self._channels.get(port)
        if channel is None or channel.task is not task:
            return
        if isinstance(task.exception(), Revoked):
            self.remove(port)
            port.revoked()
            return
        logger.warning("a replay failed: %s", task.exception(), extra={"action": "replay_failed"})
        # Live with a gap that the client is notified of is better than silent.
        self._arrived(replay)
        port.resync(self._means.log.position)
