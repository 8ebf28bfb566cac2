"""A connection: one admitted socket, from its accept to its close.

Performs the effects of its session: sends through the outbox, keeps the one timer, and starts the
joins and topic work of its channels.

An ended connection is in no reference cycle: joiners and topic handlers are made for each use, and
the outbox refers to `_End` instead of the connection. Objects in cycles wait for a full garbage
collection, which stops the process for half a second for every ten thousand closed sockets.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from auth_rls.few import Few, added, items, removed
from auth_rls.subjects.token_errors import TokenError
from realtime import conf
from realtime.client_limits import Limits
from realtime.delivery.asgi_outbox import AsgiOutbox
from realtime.delivery.client_frames import bound_frames
from realtime.delivery.inbound import reading_share
from realtime.delivery.inbound_bytes import (
    SMALL_JOIN_BYTES,
    InboundHolding,
    holding_of,
    join_holding_of,
    weakly,
)
from realtime.delivery.outbox import Outbox
from realtime.delivery.server_adapter import adapter_of, is_gone, send_close
from realtime.event_log.position import Position
from realtime.process.connection_monitor import Monitored
from realtime.process.hub import Hub
from realtime.protocol.errors import CloseCode, WireError
from realtime.session.channel import Channel, Phase
from realtime.session.effects import (
    Close,
    Effect,
    Join,
    Leave,
    Note,
    Renew,
    Send,
    SendBroadcast,
    SubscribePresence,
    Track,
)
from realtime.session.quotas import Quota
from realtime.session.session import Session
from realtime.socket.channel_subscriber import ChannelSubscriber
from realtime.socket.handshake import Admitted
from realtime.socket.joiner import Joiner
from realtime.socket.topic_handler import TopicHandler
from realtime.subscriptions.request import Revoked
from realtime.topics.rights import TopicRights
from realtime.util.database_threads import DATABASE_ERRORS
from realtime.util.payer_queue import Payer
from realtime.wal import published

logger = logging.getLogger("realtime.consumer")

# How long a close waits for a client that does not read.
_CLOSE_SECONDS = 2.0
# For so many seconds after the handshake a join does not read the user again. Later changes of the
# user come by the log, but a snapshot does not wait for the log.
_FRESH_SECONDS = 1.0

AsgiSend = Callable[[dict[str, Any]], Awaitable[None]]
AsgiReceive = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Admission:
    """The result of a handshake. `generation` is the generation of permissions in which the subject
    was read; `shared` are the quotas of the client's `address`."""

    admitted: Admitted
    generation: int
    settings: conf.Settings
    shared: Sequence[Quota]
    address: str = ""


class _End:
    """Ends a connection. Called once its outbox is empty or full, or with the error of a send.

    The connection's task waits in `receive` most of the time, and is cancelled there.
    """

    __slots__ = ("_task", "failure", "reached")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.failure: Exception | None = None
        self.reached = False

    def __call__(self, failure: Exception | None = None) -> None:
        if self.reached:
            return
        self.reached = True
        self.failure = failure
        if self._task is not None and asyncio.current_task() is not self._task:
            self._task.cancel()

    def absorb(self) -> bool:
        """Undo the cancellation by `__call__`. False if the task was cancelled by others too."""
        return self.reached and self._task is not None and not self._task.uncancel()


class Connection:
    """One per admitted socket. Created in its task, after the accept."""

    def __init__(
        self, hub: Hub, admission: Admission, scope: Mapping[str, Any], send: AsgiSend
    ) -> None:
        settings, limits = admission.settings, admission.settings.LIMITS
        self._hub = hub
        self._admission = admission
        self._asgi_send = send
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._counters = hub.counters
        self._subscribers: dict[Channel, ChannelSubscriber] = {}
        self._jobs: Few[asyncio.Task[None]] = None
        self._logged: frozenset[str] = frozenset()
        self._code: CloseCode | None = None
        self._timer: asyncio.TimerHandle | None = None
        # What its channels have in memory, where that is much.
        self._joins: InboundHolding | None = None
        self._end = _End()
        self.session = Session(
            version=admission.admitted.version,
            limits=limits,
            position=partial(_position, hub, self._subscribers),
            last_seen=self._loop.time(),
            waiting=lambda: hub.numbering.hint,
            shared=admission.shared,
            private_only=settings.PRIVATE_ONLY,
            schemas=published.schemas(),
        )
        self.outbox = _open_outbox(scope, send, limits, self._end)

    async def serve(self, receive: AsgiReceive) -> None:
        """Serve the socket until its end, and close it."""
        self._counters.accepted += 1
        self._hub.sockets[self.outbox] = self.disconnect
        admitted = self._admission.admitted
        self._hub.monitor(self.outbox, Monitored(admitted.subject, admitted.session, self.revoke))
        try:
            if self._hub.draining:
                self.disconnect()
            self.set_timer()
            await self._read_until_end(receive)
            await self._close(receive)
        finally:
            self._hub.sockets.pop(self.outbox, None)
            self._hub.connection_monitor.discard(self.outbox)

    async def _read_until_end(self, receive: AsgiReceive) -> None:
        try:
            await self._read(receive)
        except Exception as error:
            self._end.failure = error
        except asyncio.CancelledError:
            if not self._end.absorb():
                raise
        finally:
            self._end.reached = True
            self._stop()
            await self.outbox.stop()

    async def _read(self, receive: AsgiReceive) -> None:
        counters, share = self._counters, reading_share()
        payer = Payer(self._admission.address, str(id(self)))
        waiting: InboundHolding | None = None
        while not self._end.reached:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if message["type"] != "websocket.receive":
                continue
            text = message.get("text")
            data = text if text is not None else message.get("bytes") or b""
            counters.frames_in += 1
            counters.bytes_in += len(data)
            if share.open:
                began = time.perf_counter()
                self.perform(self.session.receive(data, self._loop.time()))
                share.spend(time.perf_counter() - began)
                continue
            # Much was read since other tasks ran, of this socket or of others.
            if waiting is None:
                waiting = holding_of(payer.account, weakly(self, Connection.close_for_others))
            if waiting.set(sys.getsizeof(data)):
                await share.run(payer, partial(self._receive, data))
                waiting.set(0)
            else:
                self.close_for_others()

    def _count_joins(self) -> None:
        size = self.session.size
        if self._joins is None:
            if size <= SMALL_JOIN_BYTES:
                return
            account = Payer(self._admission.address, str(id(self))).account
            self._joins = join_holding_of(account, weakly(self, Connection.close_for_others))
        if not self._joins.set(size):
            self.close_for_others()

    def close_for_others(self) -> None:
        """End the socket because others of its address need the memory that it has."""
        self.close(CloseCode.TOO_MANY)

    def _receive(self, data: str | bytes) -> None:
        if not self._end.reached:
            self.perform(self.session.receive(data, self._loop.time()))

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for job in items(self._jobs):
            job.cancel()
        for subscriber in self._subscribers.values():
            self._hub.remove(subscriber)
        self._subscribers.clear()

    async def _close(self, receive: AsgiReceive) -> None:
        if self.outbox.overflowed:
            self._code = CloseCode.SLOW_CONSUMER
            self._note(Note("slow_consumer", "outbox full", "outbox_bytes/connection"))
        if self._code is not None:
            self._counters.closes[str(int(self._code))] += 1
            await self._send_close(self._code)
            return
        failure = self._end.failure
        if failure is None or is_gone(failure) or await _is_disconnected(receive):
            return
        logger.error("socket failed", exc_info=failure, extra={"action": "failed"})

    async def _send_close(self, code: CloseCode) -> None:
        try:
            await asyncio.wait_for(send_close(self._asgi_send, code, code.meaning), _CLOSE_SECONDS)
        except (TimeoutError, RuntimeError):
            # The client does not read. The server closes the socket when the application returns.
            return
        except Exception as error:
            if not is_gone(error):
                raise

    # --- effects --------------------------------------------------------------------------------

    def perform(self, effects: list[Effect]) -> None:
        """Perform the effects of the session, in order."""
        for effect in effects:
            match effect:
                case Send(frame):
                    self._counters.frames_out += 1
                    self._counters.bytes_out += len(frame)
                    self.outbox.put(frame)
                case Join(channel):
                    self.start(partial(self._joiner.join, channel), channel)
                    if channel.join_until is not None:
                        self.set_timer()
                case Leave(channel):
                    subscriber = self._subscribers.pop(channel, None)
                    if subscriber is not None:
                        self._hub.remove(subscriber)
                case Renew(channel, token):
                    self.start(partial(self._joiner.renew, channel, token), channel)
                case SendBroadcast():
                    self._topics.broadcast(effect)
                case Track():
                    self._topics.track(effect)
                case SubscribePresence(channel):
                    self.start(partial(self._topics.subscribe_presence, channel), channel)
                case Note():
                    self._note(effect)
                case Close(code):
                    self._code = code
                    self.outbox.close()
                    # A client that reads nothing does not delay the end of its socket.
                    self._loop.call_later(_CLOSE_SECONDS, self._end)
        # Messages that are kept, or kept no longer, have no effect of their own.
        self._count_joins()

    def permit(self, channel: Channel, rights: TopicRights) -> None:
        """Apply the rights of the channel's subject on its private topic, from here on."""
        self._topics.permit(channel, rights)

    def close(self, code: CloseCode) -> None:
        """End the socket; frames that were queued before are still sent."""
        self.perform(self.session.close(code))

    def revoke(self) -> None:
        """End the socket because its credential is no longer good."""
        self._counters.auth_failures["connection"] += 1
        self.close(CloseCode.TOKEN_REFUSED)

    def disconnect(self) -> None:
        """End the socket because the server stops."""
        self.perform(self.session.disconnect())

    @property
    def _topics(self) -> TopicHandler:
        return TopicHandler(self, self._hub, self._subscribers)

    @property
    def _joiner(self) -> Joiner:
        return Joiner(
            self,
            self._hub,
            self._subscribers,
            self._topics,
            self._admission.admitted,
            self._known_since(),
            self._admission.settings.API_KEYS,
            self._admission.address,
        )

    def _known_since(self) -> int:
        """The generation of permissions in which the subject's user was read; -1 if that was so
        long ago that the user must be read again."""
        fresh = self._loop.time() - self._started < _FRESH_SECONDS
        return self._admission.generation if fresh else -1

    def _note(self, note: Note) -> None:
        self._counters.notes[note.action] += 1
        if note.limit:
            self._counters.limits[note.limit] += 1
        # At INFO once for each socket and action, because a client may repeat its mistakes.
        level = logging.DEBUG if note.action in self._logged else logging.INFO
        self._logged |= {note.action}
        # The text contains what clients sent: a line break in it must not begin a line of the log.
        text = note.text if note.text.isprintable() else repr(note.text)[1:-1]
        logger.log(level, "%s: %s", note.action, text, extra={"action": note.action})

    def start(self, work: Callable[[], Awaitable[None]], channel: Channel) -> None:
        """Run work for a channel in a task of its own; its failure ends the channel. Nothing is
        begun if the task is cancelled before."""
        task = asyncio.create_task(self._guard(work, channel), name="rowcast-join")
        self._jobs = added(self._jobs, task)
        # The task forgets its callbacks when it has called them, so no reference cycle stays.
        task.add_done_callback(self._job_done)

    def _job_done(self, task: asyncio.Task[None]) -> None:
        self._jobs = removed(self._jobs, task)

    async def _guard(self, work: Callable[[], Awaitable[None]], channel: Channel) -> None:
        try:
            await work()
        except TokenError as error:
            self.perform(self._token_refused(channel, error))
        except Revoked:
            self._counters.auth_failures["channel"] += 1
            self.close(CloseCode.TOKEN_REFUSED)
        except DATABASE_ERRORS as error:
            logger.warning("a join failed: %s", error, extra={"action": "join_failed"})
            reason = WireError.DATABASE_UNREACHABLE.reason()
            self.perform(self.session.ended(channel, reason))
        except Exception:
            logger.exception("a join failed", extra={"action": "join_failed"})
            self.perform(self.session.ended(channel, WireError.UNKNOWN.reason()))

    def _token_refused(self, channel: Channel, error: TokenError) -> list[Effect]:
        self._counters.auth_failures["channel"] += 1
        if channel.phase is Phase.JOINING:
            return self.session.refused(channel, str(error))
        return self.session.ended(channel, error.reason)

    # --- time -----------------------------------------------------------------------------------

    def set_timer(self) -> None:
        """Set the one timer of this socket to when the session has something to do."""
        if self._timer is not None:
            self._timer.cancel()
        due = self.session.due_in(self._loop.time(), time.time())
        self._timer = self._loop.call_later(due, self._tick)

    def _tick(self) -> None:
        self.perform(self.session.tick(self._loop.time(), time.time()))
        if not self.session.closing:
            self.set_timer()


def _open_outbox(scope: Mapping[str, Any], send: AsgiSend, limits: Limits, end: _End) -> Outbox:
    # Our own server takes shared frames; any other is sent ASGI messages.
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    fanout = extensions.get("rowcast.fanout")
    if fanout is not None:
        return cast(Outbox, fanout["open"](limits.outbox_bytes, end, limits.frame_bytes))
    bound_frames(send, limits.frame_bytes)
    return AsgiOutbox(partial(_send_frame, send), limits.outbox_bytes, end, adapter_of(send))


async def _is_disconnected(receive: AsgiReceive) -> bool:
    """Whether the server has ended the socket, as after a malformed frame. A send then fails with
    an error of the server, before the application has received the end."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            while (await receive())["type"] != "websocket.disconnect":
                continue
    except Exception:
        return False
    return True


async def _send_frame(send: AsgiSend, frame: str | bytes) -> None:
    key = "text" if isinstance(frame, str) else "bytes"
    await send({"type": "websocket.send", key: frame})


def _position(hub: Hub, subscribers: Mapping[Channel, ChannelSubscriber]) -> Position | None:
    """The position up to which a socket was sent everything; None while one of its channels is
    catching up."""
    replaying = hub.dispatcher.subscriptions.channels.replaying
    return None if any(map(replaying, subscribers.values())) else hub.position
