"""The subscribed channels of one process, each live or in a replay.

One record for each channel: its request, its plan, its replay if one runs, and the shifts of sets
that it has not followed yet. The index, the live sets and the replays are changed together here, so
that no channel is live and in a replay at once. Makes no query and decides no permission.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from auth_rls.few import Few, added, items, removed
from auth_rls.predicates.predicate import Predicate, Select
from auth_rls.sets.live_set import SetDelta
from realtime.event_log.event import DatabaseEvent
from realtime.protocol.join import Binding
from realtime.subscriptions.failures import log_failure
from realtime.subscriptions.filter_costs import Payers
from realtime.subscriptions.filter_ledger import CONNECTION, FilterLedger, Owner
from realtime.subscriptions.index import (
    AudienceKey,
    Delivery,
    Subscription,
    SubscriptionIndex,
)
from realtime.subscriptions.judgement import TOO_COSTLY
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.context import ReplayContext
from realtime.subscriptions.replay.replay import Replay
from realtime.subscriptions.replay.snapshot import LiveKey
from realtime.subscriptions.request import Request, Revoked
from realtime.subscriptions.subscriber import Subscriber
from realtime.wal import published

logger = logging.getLogger("realtime.listening")


@dataclass(eq=False, slots=True)
class _Channel:
    """One channel. It is live unless a replay runs."""

    request: Request
    plan: Plan
    replay: Replay | None = None
    task: asyncio.Task[None] | None = None
    #: Selects whose sets have shifted, and `apply_shifts` was not called since.
    shifted: dict[Select, None] | None = None
    #: For each of them, the shift that the rows of the client do not follow yet. Only while the
    #: channel is live: a replay compares the client's rows itself.
    behind: dict[Select, SetDelta] | None = None


class Channels:
    """All methods are called on one event loop."""

    def __init__(self, context: ReplayContext) -> None:
        self._context = context
        self._sets = context.sets
        #: The subscriptions of the channels that are live.
        self.index: SubscriptionIndex[Subscriber] = SubscriptionIndex(
            log_failure,
            self._sets.members,
            self._too_costly,
            payers_of=self._payers_of,
        )
        # What the filters of all channels occupy, and their bounds.
        self._filters = FilterLedger()
        # By channel, the ids of bindings whose filters cost too much on the current event.
        self._costly: dict[Subscriber, set[int]] = {}
        self._channels: dict[Subscriber, _Channel] = {}
        # Channels by the key of their subject's user, as text.
        self._of_user: dict[str, Few[Subscriber]] = {}
        #: How many channels are in a replay.
        self.running_replays = 0
        # Channels that are full with the current event.
        self._full: dict[Subscriber, None] = {}
        # The channels whose `shifted` is not None.
        self._shifted: dict[Subscriber, None] = {}
        # Channels that are subscribed after the current event, each with the plan by which it gets
        # that event, or None if it is new; None between two events.
        self._waiting: dict[Subscriber, Plan | None] | None = None

    def __contains__(self, subscriber: object) -> bool:
        return subscriber in self._channels

    def __iter__(self) -> Iterator[Subscriber]:
        """Every channel, as of the call: channels may come and go while the result is used."""
        return iter(tuple(self._channels))

    @property
    def subscribed(self) -> int:
        """How many channels are subscribed to changes, those in a replay included."""
        return len(self.index) + self.running_replays

    def replaying(self, subscriber: Subscriber) -> bool:
        """Whether this channel has not been sent everything up to the position of the process."""
        channel = self._channels.get(subscriber)
        return channel is not None and channel.replay is not None

    def request_of(self, subscriber: Subscriber) -> Request | None:
        """The request of a channel; None for a channel that is not here."""
        channel = self._channels.get(subscriber)
        return None if channel is None else channel.request

    def plan_of(self, subscriber: Subscriber) -> Plan:
        """The plan of a channel. Raises KeyError for a channel that is not here."""
        return self._channels[subscriber].plan

    def asks_for(self, subscriber: Subscriber, tables: Collection[str]) -> bool:
        """Whether a channel that is here has a binding on one of these tables (by `db_table`)."""
        request = self._channels[subscriber].request
        return any(
            binding.covers(entry.schema, entry.table)
            for entry in published.published()
            if entry.model._meta.db_table in tables
            for binding in request.bindings
        )

    def of_users(self, keys: Iterable[str]) -> Iterator[Subscriber]:
        """The channels of these users, given by their primary keys as text."""
        for key in keys:
            yield from items(self._of_user.get(key))

    def writers_of(self, event: DatabaseEvent) -> list[Subscriber]:
        """The channels of the user who took a receipt of this change's transaction."""
        if event.tx is None or event.actor is None:
            return []
        return [
            subscriber
            for subscriber in items(self._of_user.get(event.actor))
            if event.tx_of(self._channels[subscriber].request.writer) is not None
        ]

    # --- coming and going -----------------------------------------------------------------------

    def enter(self, subscriber: Subscriber, request: Request, plan: Plan) -> Plan:
        """Add a channel, or replace the request and the plan of one that is here, whose subject may
        be another one. Returns the plan without bindings whose filters are refused because they are
        too many."""
        request, plan = self._charged(subscriber, request, plan)
        self._enter(subscriber, request, plan)
        return plan

    def _charged(
        self, subscriber: Subscriber, request: Request, plan: Plan
    ) -> tuple[Request, Plan]:
        owners = [Owner(subscriber.connection, CONNECTION)]
        if request.owner is not None:
            owners.append(request.owner)
        excess = self._filters.charge(subscriber, owners, plan.filters)
        if not excess:
            return request, plan
        for found in excess.values():
            self._context.counters.limits[f"filter_{found.what}/{found.bounds.scope}"] += 1
        problems = {
            binding.id: binding.failed(f"ERROR P0001 (raise_exception) {excess[binding.id]}")
            for binding in request.bindings
            if binding.id in excess
        }
        request = request.refused(problems)
        return request, plan.refused(request.bindings)

    def _payers_of(self, subscriber: Subscriber) -> Payers:
        owner = self._channels[subscriber].request.owner
        return Payers(subscriber.connection, subscriber.connection if owner is None else owner.key)

    def _enter(self, subscriber: Subscriber, request: Request, plan: Plan) -> None:
        channel = self._channels.get(subscriber)
        if channel is None:
            channel = self._channels[subscriber] = _Channel(request, plan)
            self._name(subscriber, request)
            if any(b.since is not None or b.snapshot is not None for b in request.bindings):
                self._start(
                    subscriber, Replay.from_cursors(subscriber, request, plan, self._context)
                )
            else:
                self._subscribe(subscriber, channel)
            return
        before = channel.plan
        self._replace(subscriber, channel, request, plan)
        if channel.replay is not None:
            self._redirect(subscriber, channel, channel.replay)
        elif self._waiting is not None:
            # Out of the index, its bindings that go on would miss the current event.
            self._wait(subscriber, plan, before)
        else:
            self._go_on(subscriber, channel, before)

    def _go_on(self, subscriber: Subscriber, channel: _Channel, before: Plan) -> None:
        """Subscribe a live channel by its plan, in place of the plan before. Live bindings begin
        anew if the subject sees other rows."""
        if before.live == channel.plan.live:
            self._subscribe(subscriber, channel)
            return
        replay = Replay.anew(
            subscriber, channel.request, channel.plan, self._context, lambda b: b.live
        )
        self._start(subscriber, replay)

    def bind(self, subscriber: Subscriber, request: Request, plan: Plan) -> bool:
        """Give a channel that is here a new plan. Returns whether its subscriptions changed."""
        channel = self._channels[subscriber]
        before = channel.plan
        self._replace(subscriber, channel, request, plan)
        if channel.replay is not None:
            self._redirect(subscriber, channel, channel.replay)
            return before.subscriptions != plan.subscriptions
        if before.live != plan.live:
            verdicts = self._verdicts(before, channel.behind)
            self._start(
                subscriber, Replay.moved(subscriber, request, verdicts, plan, self._context)
            )
            return True
        return self._subscribe(subscriber, channel)

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a channel. Nothing is delivered to it from here on (RT-S1)."""
        channel = self._channels.get(subscriber)
        if channel is None:
            return
        self._leave(subscriber, channel)
        self._unname(subscriber, channel.request)
        self._shifted.pop(subscriber, None)
        del self._channels[subscriber]
        self._sets.release(subscriber)
        self._filters.release(subscriber)

    def _too_costly(self, subscriber: Subscriber, subscription: Subscription) -> None:
        self._costly.setdefault(subscriber, set()).add(subscription.id)

    def end(self, subscriber: Subscriber, ids: Collection[int]) -> None:
        """End these bindings, whose filters cost more than is allowed, and notify the client. Only
        another join begins them again. Does nothing to a channel that has left."""
        channel = self._channels.get(subscriber)
        if channel is None:
            return
        self._filters.release(subscriber, ids)
        request = channel.request.ended(ids, TOO_COSTLY)
        self._replace(subscriber, channel, request, channel.plan.refused(request.bindings))
        if channel.replay is not None:
            self._redirect(subscriber, channel, channel.replay)
        else:
            self._subscribe(subscriber, channel)
        working = bool(channel.plan.subscriptions)
        for binding in request.bindings:
            if binding.id in ids and binding.error is not None:
                subscriber.binding_ended(binding.error, working=working)

    def pace(self, subscriber: Subscriber) -> None:
        """Deliver nothing more to this channel until it takes more, and then what has come
        meanwhile, from the log. Does nothing to a channel that is in a replay, which waits by
        itself, or has left."""
        if self._waiting is not None:
            # All of the current event is delivered.
            self._full[subscriber] = None
            return
        channel = self._channels.get(subscriber)
        if channel is None or channel.replay is not None:
            return
        verdicts = self._verdicts(channel.plan, channel.behind)
        replay = Replay.paced(subscriber, channel.request, verdicts, channel.plan, self._context)
        self._start(subscriber, replay)

    def _replace(
        self, subscriber: Subscriber, channel: _Channel, request: Request, plan: Plan
    ) -> None:
        self._unname(subscriber, channel.request)
        channel.request, channel.plan = request, plan
        self._name(subscriber, request)

    def _name(self, subscriber: Subscriber, request: Request) -> None:
        if request.subject.user_id is not None:
            key = str(request.subject.user_id)
            self._of_user[key] = added(self._of_user.get(key), subscriber)

    def _unname(self, subscriber: Subscriber, request: Request) -> None:
        if request.subject.user_id is None:
            return
        key = str(request.subject.user_id)
        left = self._of_user[key] = removed(self._of_user[key], subscriber)
        if left is None:
            del self._of_user[key]

    # --- events ---------------------------------------------------------------------------------

    def matching(
        self, event: DatabaseEvent, found: list[Delivery[Subscriber]]
    ) -> Generator[None, None, None]:
        """Append to `found` the deliveries of this event to live channels.

        A generator: the caller may let other tasks run at each step. Call it inside `frozen`.
        """
        if event.names_no_row:
            return self._begin_anew(event)
        return self.index.matching(event, found)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While the block runs no channel is subscribed. Channels that join meanwhile are
        subscribed at its end: their position in the log is after the event that is being
        delivered."""
        self._waiting = {}
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            for subscriber, before in waiting.items():
                channel = self._channels[subscriber]
                if before is None:
                    self._subscribe(subscriber, channel)
                else:
                    self._go_on(subscriber, channel, before)
            full, self._full = self._full, {}
            for subscriber in full:
                self.pace(subscriber)
            costly, self._costly = self._costly, {}
            for subscriber, ids in costly.items():
                self.end(subscriber, ids)

    def _begin_anew(self, event: DatabaseEvent) -> Generator[None, None, None]:
        """Begin every channel anew that is subscribed to the table."""
        schema, table = event.relation.schema, event.relation.table

        for subscriber in tuple(self.index.on_table(schema, table)):
            channel = self._channels.get(subscriber)
            # A channel may have left meanwhile; a replay that began reads the table anyway.
            if channel is not None and channel.replay is None:
                before = (self._waiting or {}).get(subscriber)
                moved = before is not None and before.live != channel.plan.live

                def concerned(binding: Binding, moved: bool = moved) -> bool:
                    return binding.covers(schema, table) or (moved and binding.live)

                replay = Replay.anew(
                    subscriber, channel.request, channel.plan, self._context, concerned
                )
                self._start(subscriber, replay)
            yield

    # --- sets -----------------------------------------------------------------------------------

    def follow(self, select: Select, shift: SetDelta) -> None:
        """A set has shifted: from here on the index matches events by its new values. Call it
        before anything is awaited, and `apply_shifts` for the channels afterwards."""
        self.index.follow(select, shift)
        for holder in self._sets.holders(select):
            subscriber = cast(Subscriber, holder)
            channel = self._channels.get(subscriber)
            if channel is None:
                continue
            if channel.shifted is None:
                channel.shifted = {}
                self._shifted[subscriber] = None
            channel.shifted[select] = None
            if channel.replay is None:
                if channel.behind is None:
                    channel.behind = {}
                channel.behind[select] = shift

    @property
    def shifted(self) -> Collection[Subscriber]:
        """The channels that `apply_shifts` must be called for."""
        return tuple(self._shifted)

    def apply_shifts(self, subscriber: Subscriber) -> bool:
        """Send a channel the rows that come and go with its shifted sets. Returns whether its
        rights on a topic may have changed. Does nothing if no set of the channel has shifted, or if
        the channel has left."""
        channel = self._channels.get(subscriber)
        if channel is None or channel.shifted is None:
            return False
        del self._shifted[subscriber]
        selects, channel.shifted = channel.shifted, None
        behind, channel.behind = channel.behind, None
        plan = channel.plan
        entitled = not selects.keys().isdisjoint(plan.topic_selects)
        if selects.keys().isdisjoint(plan.row_selects):
            return entitled
        if plan.live and behind is not None:
            verdicts = self._verdicts(plan, behind)
            if verdicts != self._verdicts(plan):
                self._start(
                    subscriber,
                    Replay.moved(subscriber, channel.request, verdicts, plan, self._context),
                )
        subscriber.resubscribed()
        return entitled

    def _verdicts(
        self, plan: Plan, behind: dict[Select, SetDelta] | None = None
    ) -> dict[LiveKey, Predicate]:
        """The predicates of the live subscriptions with the current values of their sets, or with
        those before the shifts in `behind`."""
        return {key: self._sets.resolve(item.rls, behind) for key, item in plan.live.items()}

    # --- live, or in a replay -------------------------------------------------------------------

    def _redirect(self, subscriber: Subscriber, channel: _Channel, replay: Replay) -> None:
        replay.request, replay.plan = channel.request, channel.plan
        self._sets.retain(subscriber, channel.plan.selects)

    def _subscribe(self, subscriber: Subscriber, channel: _Channel) -> bool:
        plan = channel.plan
        if self._waiting is not None:
            self._wait(subscriber, plan, None)
            return False
        if plan.subscriptions:
            frame = subscriber.change_frame
            key = AudienceKey(subscriber.topic, subscriber.version.value, plan.subscriptions, frame)
            changed = self.index.set(subscriber, key)
        else:
            changed = subscriber in self.index
            self.index.remove(subscriber)
        # Last, because the index reads the sets of the subscriptions that it removes.
        self._sets.retain(subscriber, plan.selects)
        return changed

    def _wait(self, subscriber: Subscriber, plan: Plan, before: Plan | None) -> None:
        """Subscribe a channel by this plan after the current event."""
        assert self._waiting is not None
        if self._waiting.get(subscriber) is None:
            # Also one that is new here, or whose replay has just ended, may take another subject.
            self._waiting[subscriber] = before
        # The channel keeps its present sets until it is subscribed anew.
        now = [item for item in self._sets.retained(subscriber) if item not in plan.selects]
        self._sets.retain(subscriber, (*plan.selects, *now))

    def _leave(self, subscriber: Subscriber, channel: _Channel) -> None:
        """Remove a channel from the index, and end its replay."""
        channel.behind = None
        if self._waiting is not None:
            self._waiting.pop(subscriber, None)
        self.index.remove(subscriber)
        if channel.task is not None:
            self._end_replay(channel).cancel()

    def _start(self, subscriber: Subscriber, replay: Replay) -> None:
        """Start a replay. Until it ends, the channel gets nothing but what the replay delivers."""
        channel = self._channels[subscriber]
        self._leave(subscriber, channel)
        self._context.counters.replays += 1
        self._sets.retain(subscriber, replay.plan.selects)
        run = replay.run(self._arrived, self.end)
        task = asyncio.create_task(run, name="rowcast-replay")
        channel.replay, channel.task = replay, task
        self.running_replays += 1
        task.add_done_callback(lambda task: self._replay_done(subscriber, replay, task))

    def _end_replay(self, channel: _Channel) -> asyncio.Task[None]:
        task = channel.task
        assert task is not None
        channel.replay = channel.task = None
        self.running_replays -= 1
        return task

    def _arrived(self, replay: Replay) -> None:
        """Make the channel of a replay live: the replay has reached the position of the process.
        Nothing was awaited since it compared the two positions."""
        channel = self._channels.get(replay.subscriber)
        if channel is not None and channel.replay is replay:
            self._end_replay(channel)
            self._subscribe(replay.subscriber, channel)

    def _replay_done(
        self, subscriber: Subscriber, replay: Replay, task: asyncio.Task[None]
    ) -> None:
        if task.cancelled() or task.exception() is None:
            return
        channel = self._channels.get(subscriber)
        if channel is None or channel.task is not task:
            return
        if isinstance(task.exception(), Revoked):
            self.remove(subscriber)
            subscriber.revoked()
            return
        logger.warning("a replay failed: %s", task.exception(), extra={"action": "replay_failed"})
        # The channel becomes live with a gap, and its client is told to read its rows again.
        self._arrived(replay)
        subscriber.resync(self._context.log.position)
