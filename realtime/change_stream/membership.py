"""A subscriber that is subscribed, and what ends with it.

Refers to no iterator: one that is forgotten ends its membership when it is collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from auth_rls.predicates.predicate import FALSE
from auth_rls.predicates.simplify import simplify
from realtime.change_stream.asked import Asked
from realtime.change_stream.errors import AccessRevoked
from realtime.change_stream.inbox import Inbox
from realtime.change_stream.source import Source, source_here
from realtime.change_stream.subscriber import CodeSubscriber
from realtime.event_log.position import Position
from realtime.process.connection_monitor import Monitored
from realtime.subscriptions.channels import Channels
from realtime.subscriptions.request import Request, Revoked
from realtime.subscriptions.subscriber import Subscribed
from realtime.util.payer_queue import Payer


@dataclass(eq=False, slots=True)
class Membership:
    """On its event loop."""

    loop: asyncio.AbstractEventLoop
    source: Source
    inbox: Inbox
    #: Of the log that the subscriber follows.
    epoch: str
    #: Where it began, if that is neither at a cursor nor by a snapshot.
    begun_at: Position | None
    _subscriber: CodeSubscriber
    _expiry: asyncio.TimerHandle | None = None
    _left: bool = False
    _stopping: asyncio.Task[None] | None = field(default=None)

    @classmethod
    async def begin(cls, asked: Asked) -> Membership:
        """Subscribe. Raises ValueError for bindings that the database refuses, AccessRevoked,
        ServerStops, and what the database raises."""
        source = await source_here()
        try:
            return await cls._subscribe(asked, source)
        except BaseException:
            source.leave()
            raise

    @classmethod
    async def _subscribe(cls, asked: Asked, source: Source) -> Membership:
        feeding = source.feeding
        subscriptions = feeding.dispatcher.subscriptions
        channels = subscriptions.channels
        loop = asyncio.get_running_loop()
        inbox = Inbox()
        left = _Leaving(loop)
        subscriber = CodeSubscriber(
            feeding.new_id(), asked.table, inbox, left, lambda: _sees_rows(channels, subscriber)
        )
        inbox.full = lambda: channels.pace(subscriber)
        subject = asked.subject
        feeding.connection_monitor.put(subscriber, Monitored(subject, None, subscriber.revoked))
        payer = Payer("", f"changes {subscriber.id}")
        try:
            subscribed = await subscriptions.add(
                subscriber, Request(subject, asked.bindings, payer=payer)
            )
            _check(subscribed)
        except Revoked:
            feeding.remove(subscriber)
            raise AccessRevoked("the user was deactivated or deleted") from None
        except BaseException:
            feeding.remove(subscriber)
            raise
        # Nothing is awaited up to here from the subscription on, so nothing has come yet.
        subscriber.subscribed()
        at = subscribed.at
        fresh = all(b.since is None and b.snapshot is None for b in asked.bindings)
        member = cls(loop, source, inbox, at.epoch, at if fresh else None, subscriber)
        left.member = member
        if feeding.draining:
            subscriber.close()
        else:
            feeding.on_drain[member] = subscriber.close
        if subject.expires_at is not None:
            left_seconds = max(0.0, subject.expires_at - time.time())
            member._expiry = loop.call_later(left_seconds, subscriber.expired)
        return member

    def leave(self) -> None:
        """Deliver nothing more, and end what runs for it alone. Any number of times."""
        if self._left:
            return
        self._left = True
        self.inbox.end()
        if self._expiry is not None:
            self._expiry.cancel()
        self.source.feeding.on_drain.pop(self, None)
        self.source.feeding.remove(self._subscriber)
        self._stopping = self.source.leave()

    def forget(self) -> None:
        """`leave`, from any thread, soon."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all that ran on it
            self.loop.call_soon_threadsafe(self.leave)

    async def left(self) -> None:
        """Leave, and wait for the end of what runs for it alone."""
        self.leave()
        if self._stopping is not None:
            await asyncio.shield(self._stopping)


class _Leaving:
    """Leaves soon after the end: notices come while subscribers are gone through."""

    __slots__ = ("_loop", "member")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.member: Membership | None = None

    def __call__(self) -> None:
        self._loop.call_soon(self._leave)

    def _leave(self) -> None:
        if self.member is not None:
            self.member.leave()


def _check(subscribed: Subscribed) -> None:
    """Raise ValueError for a binding that cannot work. They are all of one table."""
    for problem in subscribed.problems:
        if problem is not None:
            hint = subscribed.hints.get(problem)
            raise ValueError(problem if hint is None else f"{problem} {hint}")


def _sees_rows(channels: Channels, subscriber: CodeSubscriber) -> bool:
    """Whether a policy may show the subject any row."""
    if subscriber not in channels:
        return False
    plan = channels.plan_of(subscriber)
    return any(simplify(item.rls) != FALSE for item in plan.subscriptions)
