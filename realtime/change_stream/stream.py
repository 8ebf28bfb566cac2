"""`changes`: the changes of a model or queryset, as an async iterator."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterable
from typing import Any

from realtime.change_stream.asked import Asked, asked_for
from realtime.change_stream.membership import Membership
from realtime.change_stream.source import ServerStops
from realtime.event_log.position import Position
from realtime.subscriptions.change import Change, of_event
from realtime.subscriptions.seen_change import SeenChange
from realtime.wal.actor import shown_actor


def changes(
    model_or_queryset: Any,
    *,
    subject: Any = None,
    events: str | Iterable[str] = "*",
    filter: str | None = None,
    since: Any = None,
    snapshot: bool = False,
    live: bool = False,
) -> ChangeStream:
    """Every committed change that the subject may see, in the order of the log, as an async
    iterator of `Change`:

        async for change in realtime.changes(Order, subject=request.user, filter="status=eq.paid"):
            ...

    The order, the policies and the options are those of a socket. It works in any process: in a
    server through what serves its sockets, elsewhere by following the log. It begins with the first
    `anext`, or with `async with realtime.changes(...) as stream`, which also ends it.

    `model_or_queryset`: a published model, or a queryset of one, whose `filter` and `exclude` on
    own columns and whose `only` and `defer` count. `subject`: None for the service role, which sees
    every row; a Django user; or an `auth_rls.Subject`. `events`: "*", or some of "INSERT", "UPDATE"
    and "DELETE". `filter`: the text of a filter as clients write it, beside the queryset's.
    `since`: the changes after this seq, "<epoch>:<seq>", `commit_timestamp` or aware datetime come
    first. `snapshot`: the rows as they are come first, as INSERT with `change.snapshot`. `live`:
    rows that begin or cease to match, or to be visible, come as INSERT and DELETE.

    A consumer that is slow loses nothing: at most 1,000 changes or 1 MB wait in memory, and the
    rest is read from the log when it goes on. A database that does not answer is waited for, except
    at the beginning. The iteration ends by itself only when its server stops.

    Raises TypeError and ValueError at once for arguments that cannot be; ValueError at the
    beginning for a table that is not captured. The iteration raises `ResyncRequired`,
    `AccessRevoked`, `SubscriptionEnded` and `SnapshotTruncated` of `realtime`.
    """
    return ChangeStream(
        asked_for(
            model_or_queryset,
            subject=subject,
            events=events,
            filter=filter,
            since=since,
            snapshot=snapshot,
            live=live,
        )
    )


class ChangeStream(AsyncIterator[Change]):
    """What `changes` returns. It is used on one event loop."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._member: Membership | None = None
        self._beginning: asyncio.Task[Membership] | None = None
        self._finalizer: Any = None
        self._closed = False
        self._position: str | None = None

    @property
    def position(self) -> str | None:
        """The position "<epoch>:<seq>" behind the last change that was taken, to go on from with
        `since`; None before there is one, and within a snapshot."""
        return self._position

    @property
    def waiting(self) -> int:
        """How many changes wait in memory to be taken."""
        return 0 if self._member is None else self._member.inbox.changes

    async def __aenter__(self) -> ChangeStream:
        """Begin: changes committed from here on are among those that come."""
        await self._begun()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __aiter__(self) -> ChangeStream:
        return self

    async def __anext__(self) -> Change:
        return self.change(await self.take())

    async def aclose(self) -> None:
        """End it, and wait for what ran for it alone. Any number of times."""
        self._closed = True
        if self._beginning is not None:
            self._beginning.cancel()
            await asyncio.wait({self._beginning})
        if self._member is not None:
            if self._finalizer is not None:
                self._finalizer.detach()
            await self._member.left()

    async def take(self) -> SeenChange:
        """The next change as it is delivered, to be read by `change`. Raises as the iteration
        does."""
        try:
            member = await self._begun()
        except ServerStops:
            self._closed = True
            raise StopAsyncIteration from None
        while True:
            found = self._take(member)
            if found is not None:
                return found
            if member.inbox.ended:
                self._closed = True
                if (error := member.inbox.error) is not None:
                    member.inbox.error = None
                    raise error
                raise StopAsyncIteration
            await member.inbox.news()

    def take_more(self) -> SeenChange | None:
        """Another change, if one waits."""
        return None if self._member is None else self._take(self._member)

    def change(self, seen: SeenChange) -> Change:
        """The change for the consumer. Does not need the event loop."""
        asked, event = self._asked, seen.event
        return of_event(
            event,
            asked.model,
            seen.select,
            show_old=seen.show_old,
            op=seen.op,
            snapshot=seen.snapshot,
            actor=shown_actor(event.actor, asked.subject),
            tx=seen.tx,
        )

    def _take(self, member: Membership) -> SeenChange | None:
        while True:
            found = member.inbox.take()
            if not isinstance(found, Position):
                if found is not None:
                    self._passed(member, found)
                return found
            self._position = f"{found.epoch}:{found.seq}"

    def _passed(self, member: Membership, seen: SeenChange) -> None:
        # A row that takes another key is two changes of one seq: who has one still needs the other.
        if not seen.snapshot and not member.inbox.continues(seen):
            self._position = f"{member.epoch}:{seen.event.seq}"

    async def _begun(self) -> Membership:
        if self._member is not None:
            return self._member
        if self._closed:
            raise StopAsyncIteration
        if self._beginning is None:
            self._beginning = asyncio.ensure_future(Membership.begin(self._asked))
            this = weakref.ref(self)
            self._beginning.add_done_callback(lambda beginning: _begun(this(), beginning))
        # A caller that is cancelled, by a timeout perhaps, does not end what has begun.
        return await asyncio.shield(self._beginning)

    def belong(self, member: Membership | None) -> None:
        """It is subscribed; None: that failed."""
        self._beginning, self._member = None, member
        if member is None:
            return
        if member.begun_at is not None:
            self._position = f"{member.begun_at.epoch}:{member.begun_at.seq}"
        self._finalizer = weakref.finalize(self, member.forget)
        self._finalizer.atexit = False


def _begun(stream: ChangeStream | None, beginning: asyncio.Task[Membership]) -> None:
    failed = beginning.cancelled() or beginning.exception() is not None
    member = None if failed else beginning.result()
    if stream is not None:
        stream.belong(member)
    elif member is not None:
        # It was forgotten meanwhile.
        member.leave()
