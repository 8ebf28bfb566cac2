"""The consumer: one per socket, a thin shell around a session.

Performs the session's effects: sends through the outbox, keeps the one timer, and has the rest done
by `joiner` and `talk`.
It has no channel on the layer and does not pass through Channels' `dispatch`, which hops to a
thread for every message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

from channels.consumer import AsyncConsumer

from auth_rls.subjects.tokens import TokenError
from realtime import conf
from realtime.delivery.asgi_outbox import AsgiOutbox
from realtime.delivery.farewell import send_close
from realtime.delivery.outbox import Outbox
from realtime.delivery.server_adapter import carrier_of, is_gone
from realtime.event_log.position import Position
from realtime.process.hub import Hub, hub
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
    Track,
    WatchPresence,
)
from realtime.session.quotas import network
from realtime.session.session import Session
from realtime.socket.channel_subscriber import ChannelSubscriber
from realtime.socket.handshake import Admitted, Refusal, admit, refuse
from realtime.socket.joiner import Joiner
from realtime.socket.topic_handler import TopicHandler
from realtime.subscriptions.request import Revoked
from realtime.topics.rights import TopicRights
from realtime.util.database_threads import DATABASE_ERRORS

logger = logging.getLogger("realtime.consumer")

_FAREWELL_SECONDS = 2.0
_SLICE_SECONDS = 0.005
_RESTARTING = Refusal(503, CloseCode.RESTART, WireError.RESTARTING.text())
AsgiSend = Callable[[dict[str, Any]], Awaitable[None]]
AsgiReceive = Callable[[], Awaitable[dict[str, Any]]]


class RealtimeConsumer(AsyncConsumer):
    """Serves the Supabase Realtime protocol on one socket."""

    session: Session
    outbox: Outbox

    async def __call__(self, scope: Any, receive: AsgiReceive, send: AsgiSend) -> None:
        self.scope = scope
        self._asgi_send = send
        self._hub: Hub = hub()
        self._loop = asyncio.get_running_loop()
        settings = conf.current()
        await receive()  # websocket.connect
        if self._hub.draining:
            await self._refuse(_RESTARTING)
            return
        self._counters = self._hub.counters
        address = network(str((scope.get("client") or ("",))[0]))
        # Behind a socket file there is no address, and nothing that a client has in common.
        now = self._loop.time()
        self._shared = (self._hub.quotas.address(address, now),) if address else ()
        if any(not quota.handshakes.take(now) for quota in self._shared):
            self._counters.limits["handshakes_per_second/address"] += 1
            await self._refuse(Refusal(429, CloseCode.TOO_MANY, "Too many connections per second"))
            return
        limits = settings.LIMITS
        limit = self._hub.enter(address, limits.connections, limits.connections_per_address)
        if limit is not None:
            self._counters.limits[limit] += 1
            await self._refuse(Refusal(429, CloseCode.TOO_MANY, "Too many connected users"))
            return
        try:
            try:
                self._admitted_at = self._hub.dispatcher.subscribers.generation
                self._admitted: Admitted = await admit(scope, settings)
            except Refusal as refusal:
                if refusal.status in (401, 403):
                    self._counters.auth_failures["handshake"] += 1
                await self._refuse(refusal)
            except DATABASE_ERRORS as error:
                # Nobody can be told who they are without a database.
                logger.warning("handshake failed: %s", error, extra={"action": "handshake_failed"})
                await self._refuse(Refusal(503, CloseCode.RESTART, "Error connecting to Realtime"))
            else:
                if self._hub.draining:
                    await self._refuse(_RESTARTING)
                else:
                    await self._serve(settings, receive)
        finally:
            self._hub.leave(address)
            self._hub.sockets.pop(vars(self).get("outbox"), None)  # type: ignore[call-overload]
            self._let_go()

    # --- one socket's life ----------------------------------------------------------------------

    async def _serve(self, settings: conf.Settings, receive: AsgiReceive) -> None:
        limits = settings.LIMITS
        self._ports: dict[Channel, ChannelSubscriber] = {}
        self.session = Session(
            version=self._admitted.version,
            bounds=self._hub.bounds,
            position=partial(_position, self._hub, self._ports),
            last_seen=self._loop.time(),
            shared=self._shared,
        )
        self._talk = TopicHandler(self, self._hub, self._ports)
        self._joiner = Joiner(
            self,
            self._hub,
            self._ports,
            self._talk,
            self._admitted,
            self._admitted_at,
            settings.API_KEYS,
        )
        self._jobs: set[asyncio.Task[None]] = set()
        self._noted: set[str] = set()
        self._code: CloseCode | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._counters.accepted += 1
        self._task = asyncio.current_task()
        self._over = False
        self._failure: Exception | None = None
        await self._asgi_send(
            {"type": "websocket.accept", "subprotocol": self._admitted.subprotocol}
        )
        self.outbox = self._open_outbox(limits.outbox_bytes)
        self._hub.sockets[self.outbox] = self.disconnect
        if self._hub.draining:
            self.disconnect()
        self.set_timer()
        try:
            await self._read(receive)
        except Exception as error:
            self._failure = error
        except asyncio.CancelledError:
            # Called off by `_end`, unless somebody else wants an end too.
            if not self._over or self._task is None or self._task.uncancel():
                raise
        finally:
            self._over = True
            self._clean_up()
            await self.outbox.stop()
        if self.outbox.overflowed:
            self._code = CloseCode.SLOW_CONSUMER
            self._note(Note("slow_consumer", "outbox full", "outbox_bytes/connection"))
        if self._failure is not None and self._code is None:
            # A send to a client that is gone; anything else is ours to know of.
            if not is_gone(self._failure):
                failure = self._failure
                logger.error("socket failed", exc_info=failure, extra={"action": "failed"})
            return
        if self._code is not None:
            self._counters.closes[str(int(self._code))] += 1
            await self._say_farewell(self._code)

    def _open_outbox(self, bound: int | None) -> Outbox:
        # A server of ours takes prepared frames; to any other they are sent as ASGI has it.
        extensions: dict[str, Any] = self.scope.get("extensions") or {}
        fanout = extensions.get("rowcast.fanout")
        if fanout is not None:
            return cast(Outbox, fanout["open"](bound, self._end))
        return AsgiOutbox(self._send_frame, bound, self._end, carrier_of(self._asgi_send))

    def _end(self, failure: Exception | None = None) -> None:
        """Nothing more is sent or read. One task a socket: it is in `receive`, and called off."""
        if self._over:
            return
        self._over = True
        self._failure = failure
        if self._task is not None and asyncio.current_task() is not self._task:
            self._task.cancel()

    async def _read(self, receive: AsgiReceive) -> None:
        counters = self._counters
        breath = self._loop.time() + _SLICE_SECONDS
        while not self._over:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if message["type"] == "websocket.receive":
                text = message.get("text")
                data = text if text is not None else message.get("bytes") or b""
                counters.frames_in += 1
                counters.bytes_in += len(data)
                self.perform(self.session.receive(data, self._loop.time()))
            # What has come already is received without a pause: others have their turn too.
            if self._loop.time() > breath:
                await asyncio.sleep(0)
                breath = self._loop.time() + _SLICE_SECONDS

    async def _say_farewell(self, code: CloseCode) -> None:
        try:
            await asyncio.wait_for(send_close(self._asgi_send, code), _FAREWELL_SECONDS)
        except (TimeoutError, RuntimeError):
            # The client does not read: ending the application closes the socket.
            return
        except Exception as error:
            if not is_gone(error):
                raise

    def _clean_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for job in self._jobs:
            job.cancel()
        for port in self._ports.values():
            self._hub.remove(port)
        self._ports.clear()

    def _let_go(self) -> None:
        # What goes in circles waits for a full garbage collection, in which everything stands
        # still: half a second for every ten thousand sockets that have gone (`server.py`).
        self._task = self._failure = None
        for name in ("_talk", "_joiner"):
            vars(self).pop(name, None)

    async def _send_frame(self, frame: str | bytes) -> None:
        key = "text" if isinstance(frame, str) else "bytes"
        await self._asgi_send({"type": "websocket.send", key: frame})

    async def _refuse(self, refusal: Refusal) -> None:
        logger.info("handshake refused: %s", refusal.text, extra={"action": "handshake_refused"})
        await refuse(refusal, self.scope, self._asgi_send)

    # --- effects --------------------------------------------------------------------------------

    def perform(self, effects: list[Effect]) -> None:
        """Do what the session wants done, in order."""
        for effect in effects:
            match effect:
                case Send(frame):
                    self._counters.frames_out += 1
                    self._counters.bytes_out += len(frame)
                    self.outbox.put(frame)
                case Join(channel):
                    self.start(self._joiner.join(channel), channel)
                case Leave(channel):
                    port = self._ports.pop(channel, None)
                    if port is not None:
                        self._hub.remove(port)
                case Renew(channel, token):
                    self.start(self._joiner.renew(channel, token), channel)
                case SendBroadcast():
                    self._talk.broadcast(effect)
                case Track():
                    self._talk.track(effect)
                case WatchPresence(channel):
                    self.start(self._talk.watch(channel), channel)
                case Note():
                    self._note(effect)
                case Close(code):
                    self._code = code
                    self.outbox.close()
                    # A client that takes nothing does not hold up its own end.
                    self._loop.call_later(_FAREWELL_SECONDS, self._end)

    def close(self, code: CloseCode) -> None:
        """End the socket; what was queued before is still sent."""
        self.perform(self.session.close(code))

    def disconnect(self) -> None:
        """End the socket because the server stops."""
        self.perform(self.session.disconnect())

    def _note(self, note: Note) -> None:
        self._counters.notes[note.action] += 1
        if note.limit:
            self._counters.limits[note.limit] += 1
        # A client repeats its mistakes; the log need not. The later ones are for debugging.
        level = logging.DEBUG if note.action in self._noted else logging.INFO
        self._noted.add(note.action)
        # What clients sent is in it: it must not begin a line of its own.
        text = note.text if note.text.isprintable() else repr(note.text)[1:-1]
        logger.log(level, "%s: %s", note.action, text, extra={"action": note.action})

    def start(self, work: Any, channel: Channel) -> None:
        """Do work for a channel beside what the client sends; what fails ends the channel."""
        task = asyncio.create_task(self._guard(work, channel), name="rowcast-join")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _guard(self, work: Awaitable[None], channel: Channel) -> None:
        # A failure ends its channel and nothing else.
        try:
            await work
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

    def permit(self, channel: Channel, rights: TopicRights) -> None:
        """What the channel's subject may do on its private topic, from here on."""
        self._talk.permit(channel, rights)

    # --- time -----------------------------------------------------------------------------------

    def set_timer(self) -> None:
        """Look again when anything is due next: one timer a socket, for the earliest moment."""
        if self._timer is not None:
            self._timer.cancel()
        due = self.session.due_in(self._loop.time(), time.time())
        self._timer = self._loop.call_later(due, self._tick)

    def _tick(self) -> None:
        self.perform(self.session.tick(self._loop.time(), time.time()))
        if not self.session.closing:
            self.set_timer()


def _position(hub: Hub, ports: Mapping[Channel, ChannelSubscriber]) -> Position | None:
    """How far a socket has been served; None while it is catching up."""
    replaying = hub.dispatcher.subscribers.replaying
    return None if any(map(replaying, ports.values())) else hub.position
