"""Binding notices: what a client is told of the bindings of its channels.

Pure, a part of the session: the `system` messages about subscriptions, replays and snapshots. Row
changes themselves are framed in `realtime.subscriptions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from realtime.event_log.position import Position
from realtime.protocol import errors
from realtime.protocol.table_key import TableKey
from realtime.session.channel import Channel, Phase
from realtime.session.effects import Effect, Note, Send
from realtime.session.replies import Replies

_EXTENSION = "postgres_changes"
_NO_HINTS: Mapping[str, str] = MappingProxyType({})


class BindingNotices:
    """One per socket. `waiting` gives a hint while changes wait and no process numbers them, else
    None. Nothing is sent to a channel that has left."""

    __slots__ = ("_replies", "_waiting")

    def __init__(self, replies: Replies, waiting: Callable[[], str | None]) -> None:
        self._replies = replies
        self._waiting = waiting

    def subscribed(
        self,
        channel: Channel,
        problems: Sequence[str],
        hints: Mapping[str, str] = _NO_HINTS,
        subject: str | None = None,
    ) -> list[Effect]:
        """The channel's bindings are subscribed, but for those with these problems.

        `hints` has by the text of a message what may help. `subject` is the mark of another subject
        that the channel has from here on.
        """
        channel.follows = len(channel.config.bindings) > len(problems)
        channel.is_told_of_waiting = errors.SUBSCRIBED in hints and self._waiting() is not None
        effects = [
            effect for problem in problems for effect in self._problem(channel, problem, hints)
        ]
        if channel.follows:
            effects.append(self._success(channel, hints, subject))
        return effects

    def resubscribed(self, channel: Channel) -> list[Effect]:
        """The rows that the channel's subject may see have changed."""
        if channel.phase is not Phase.JOINED:
            return []
        channel.follows = True
        return [self._success(channel)]

    def binding_ended(self, channel: Channel, problem: str, *, working: bool) -> list[Effect]:
        """A binding of the channel delivers nothing any more; `working` if another one does."""
        if channel.phase is Phase.GONE:
            return []
        channel.follows = working
        return self._problem(channel, problem)

    def of_waiting(self, channels: Iterable[Channel]) -> list[Effect]:
        """The hint that changes wait, once for each channel that follows changes: it joined before
        they did."""
        hint = self._waiting()
        effects: list[Effect] = []
        for channel in channels:
            if hint is None:
                channel.is_told_of_waiting = False
            elif channel.follows and not channel.is_told_of_waiting:
                channel.is_told_of_waiting = True
                effects.append(self._success(channel, {errors.SUBSCRIBED: hint}))
        return effects

    def resync(self, channel: Channel, at: Position) -> list[Effect]:
        """Events are lost to this channel: its client must read its rows again."""
        if channel.phase is Phase.GONE or not channel.config.bindings:
            return []
        return [self._replies.system_at(channel, "resume", "resync required", at)]

    def caught_up(self, channel: Channel, at: Position) -> list[Effect]:
        """The channel was sent everything since its cursors."""
        if channel.phase is Phase.GONE:
            return []
        return [self._replies.system_at(channel, "resume", "caught up", at)]

    def snapshot_begins(
        self, channel: Channel, at: Position, keys: Sequence[TableKey] = ()
    ) -> list[Effect]:
        """The rows of the channel's snapshots follow; `keys` are those of their tables."""
        if channel.phase is Phase.GONE:
            return []
        more = {"keys": keys} if keys else {}
        return [self._replies.system_at(channel, "snapshot", "snapshot begins", at, **more)]

    def snapshot(self, channel: Channel, at: Position, count: int, complete: bool) -> list[Effect]:
        """The channel was sent `count` rows of its snapshots; not all of them unless `complete`."""
        if channel.phase is Phase.GONE:
            return []
        message = "snapshot complete" if complete else "snapshot truncated"
        return [self._replies.system_at(channel, "snapshot", message, at, count=count)]

    def _problem(
        self, channel: Channel, problem: str, hints: Mapping[str, str] = _NO_HINTS
    ) -> list[Effect]:
        return [
            Note("binding_refused", f"{channel.topic}: {problem}"),
            self._system(channel, "error", problem, hints),
        ]

    def _success(
        self, channel: Channel, hints: Mapping[str, str] = _NO_HINTS, subject: str | None = None
    ) -> Send:
        more = {} if subject is None else {"subject": subject}
        return self._system(channel, "ok", errors.SUBSCRIBED, hints, **more)

    def _system(
        self, channel: Channel, status: str, message: str, hints: Mapping[str, str], **more: str
    ) -> Send:
        if message in hints:
            more = {"hint": hints[message], **more}
        return self._replies.system(channel.name, channel, status, _EXTENSION, message, **more)
