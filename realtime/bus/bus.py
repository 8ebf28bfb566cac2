"""The channel layer as a bus between processes: one message of bytes per batch.

Each server process has one channel in the group `realtime.events`; sockets have none. The layer may
lose, repeat, delay or reorder a message: every batch carries its position in the log, so the
dispatcher notices and reads the log itself, and changes of presence carry the number of their
process, so that others read its members. Without a layer the bus reaches its own process only.

A layer does not report that it has forgotten a group, or that it stopped listening after a
reconnect. So a process that has received nothing for a while sends a probe; a process that does not
receive a probe joins the group again. Every call of the layer has a short timeout; while the layer
does not answer, sending fails at once and a task of the bus keeps trying.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from channels.layers import InMemoryChannelLayer, get_channel_layer

from realtime.bus.layers import let_go, own_layer
from realtime.event_log.batch import Batch
from realtime.topics.broadcast import BroadcastBatch, PassingBatch
from realtime.topics.presence.changes import PresenceChanges, PresenceEnded
from realtime.util.counters import Counters
from realtime.util.outage_log import OutageLog
from realtime.util.tasks import cancelled

logger = logging.getLogger("realtime.bus")

GROUP = "realtime.events"
_MESSAGE_TYPE = "realtime.batch"

_MOMENT_SECONDS = 0.001
# Layers forget group members that are not added again (`group_expiry`, a day by default).
_REFRESH_SECONDS = 60.0
# After so many joins without receiving anything, while sending works, the layer object is stuck.
_VAIN_JOINS = 3
# Redis disconnects a subscriber for which a few of these wait. A larger batch is sent without its
# rows, and servers read them from the log.
_MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in seconds.

    `call` bounds one call of the layer, and how long a probe may take to come back. `silence`:
    a process that has received nothing for so long sends a probe. All processes receive it, so
    about one probe is sent in this time, however many processes there are.
    """

    call: float = 1.0
    retry: float = 1.0
    silence: float = 4.0


class Probe(msgspec.Struct, frozen=True, array_like=True, tag="probe"):
    """Has no content. A process that receives it is on the bus."""


class LayerDown(ConnectionError):
    """The channel layer does not answer; the message was not sent."""


Message = Batch | BroadcastBatch | PassingBatch | PresenceChanges | PresenceEnded
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message | Probe).decode
_PROBE = _encode(Probe())


class Bus:
    """One process's end of the bus. All methods are called on its event loop."""

    timing = Timing()

    def __init__(
        self,
        alias: str,
        receive: Callable[[Message], None],
        counters: Counters | None = None,
        busy: Callable[[], bool] = lambda: False,
        timing: Timing | None = None,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        """`receive` is called with each message. `busy` returns whether received broadcasts wait in
        this process: if it is the only receiver, further broadcasts then stay in the sender's
        queue, which has a bound. A batch of entries or of presence of more than `most_bytes` is
        sent without its rows."""
        self._alias = alias
        if timing is not None:
            self.timing = timing
        self._most_bytes = most_bytes
        self._busy = busy
        self._layer: Any = own_layer(alias)
        self._reaches = not (self._layer is None or isinstance(self._layer, InMemoryChannelLayer))
        self._receive = receive
        self.counters = Counters() if counters is None else counters
        self._outage = OutageLog(
            logger,
            failing="channel layer failed: %s; servers read the log themselves",
            failing_action="bus_down",
            works="channel layer works again",
            works_action="bus_up",
        )
        self._layer_down = False
        self._recovery: asyncio.Task[None] | None = None
        # Only when joined:
        self._keeper: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._channel = ""
        self._added_at = 0.0
        self._received_at = 0.0
        self._received = asyncio.Event()
        self._check = asyncio.Event()

    @property
    def healthy(self) -> bool:
        """Whether the layer works, as far as this process knows."""
        return self._outage.problem is None

    @property
    def brings_others(self) -> bool:
        """Whether messages of other processes come, as far as this process knows."""
        return self.healthy and self._reaches

    async def join(self) -> None:
        """Start receiving. Returns after the first probe came back, or the layer failed."""
        if self._layer is None or self._keeper is not None:
            return
        answered = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(answered), name="rowcast-bus")
        await answered.wait()

    async def leave(self) -> None:
        """Stop receiving."""
        tasks = [task for task in (self._keeper, self._recovery) if task is not None]
        await cancelled(tasks)
        if self._keeper is not None:
            await self._exit()
        self._keeper = self._recovery = None
        await self._let_go(self._layer)

    def check_soon(self) -> None:
        """A message that should have come did not: send a probe now."""
        self._check.set()

    async def publish(self, message: Message) -> None:
        """Send to every process, this one included. Raises LayerDown, or what the layer raises."""
        if self._layer_down:
            raise LayerDown("the channel layer does not answer")
        if isinstance(message, BroadcastBatch):
            while self._busy() and self._is_alone():
                await asyncio.sleep(_MOMENT_SECONDS)
            if self._is_alone():
                self._deliver(message)
                return
        elif self._layer is None:
            self._deliver(message)
            return
        elif isinstance(message, PresenceChanges | PresenceEnded) and self._is_alone():
            # A process knows its own.
            return
        # Not the layer's fault if it fails.
        body = self._encoded(message)
        try:
            await self._send(body)
        except Exception as error:
            self._layer_down = True
            self._failed(error)
            if self._keeper is not None:
                self.check_soon()
            elif self._recovery is None or self._recovery.done():
                self._recovery = asyncio.create_task(self._recover(), name="rowcast-bus-recovery")
            raise

    # --- sending --------------------------------------------------------------------------------

    def _is_alone(self) -> bool:
        """Whether this process is the only receiver. Then it need not wait for the layer to bring a
        message back, which is nearly half of the time until the first socket is written to."""
        layer = self._layer
        if layer is None:
            return True
        if type(layer) is not InMemoryChannelLayer:
            return False
        waiting = layer.channels.get(self._channel)
        return layer.groups.get(GROUP, {}).keys() == {self._channel} and (
            # A message that is still on its way must come first.
            waiting is None or waiting.empty()
        )

    def _encoded(self, message: Message) -> bytes:
        body = _encode(message)
        if len(body) > self._most_bytes:
            if isinstance(message, Batch) and message.rows:
                return _encode(Batch(message.epoch, message.rows[-1].seq, [], []))
            if isinstance(message, PresenceChanges):
                return _encode(message.bare)
        return body

    async def _send(self, body: bytes) -> None:
        async with asyncio.timeout(self.timing.call):
            await self._layer.group_send(GROUP, {"type": _MESSAGE_TYPE, "b": body})
        self._layer_down = False

    async def _recover(self) -> None:
        # For a process that only sends. One that receives has the keeper.
        while self._layer_down:
            await asyncio.sleep(self.timing.retry)
            try:
                await self._send(_PROBE)
            except Exception as error:
                self._failed(error)
        self._outage.worked()

    # --- receiving --------------------------------------------------------------------------------

    async def _keep(self, answered: asyncio.Event) -> None:
        vain = 0
        while True:
            try:
                if self._listener is None:
                    await self._enter()
                if await self._receives_probe():
                    vain = 0
                    self._outage.worked()
                    answered.set()
                    await self._until_silence()
                    continue
                # The probe was sent and did not come back.
                vain += 1
                self._failed(LayerDown("nothing is received from it"))
            except Exception as error:
                self._failed(error)
            answered.set()
            await self._exit()
            if vain >= _VAIN_JOINS:
                vain = 0
                await self._replace_layer()
            await asyncio.sleep(self.timing.retry)
            self.counters.rejoins += 1

    async def _enter(self) -> None:
        async with asyncio.timeout(self.timing.call):
            self._channel = await self._layer.new_channel()
            await self._add()
        self._listener = asyncio.create_task(self._listen(self._channel), name="rowcast-listener")

    async def _add(self) -> None:
        await self._layer.group_add(GROUP, self._channel)
        self._added_at = asyncio.get_running_loop().time()

    async def _exit(self) -> None:
        listener, self._listener = self._listener, None
        channel, self._channel = self._channel, ""
        if listener is not None:
            # A layer that does not answer may delay even the cancellation.
            listener.cancel()
            await asyncio.wait({listener}, timeout=self.timing.call)
        if channel:
            try:
                async with asyncio.timeout(self.timing.call):
                    await self._layer.group_discard(GROUP, channel)
            except Exception as error:
                logger.debug("group not left: %s", error, extra={"action": "bus_leave_failed"})

    async def _receives_probe(self) -> bool:
        self._received.clear()
        self._check.clear()
        await self._send(_PROBE)
        try:
            async with asyncio.timeout(self.timing.call):
                await self._received.wait()
        except TimeoutError:
            return False
        return True

    async def _until_silence(self) -> None:
        """Return when it is time for a probe. Raises what the listener raised."""
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        silence = self.timing.silence * random.uniform(1.0, 1.5)
        wanted = asyncio.create_task(self._check.wait())
        try:
            while (left := self._received_at + silence - loop.time()) > 0:
                done, _ = await asyncio.wait(
                    (self._listener, wanted),
                    timeout=left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if self._listener in done:
                    await self._listener
                if wanted in done:
                    return
                if loop.time() - self._added_at > _REFRESH_SECONDS:
                    async with asyncio.timeout(self.timing.call):
                        await self._add()
        finally:
            wanted.cancel()

    async def _listen(self, channel: str) -> None:
        # As fast as the layer delivers: messages that wait in a layer may be dropped there.
        while True:
            self._decode(await self._layer.receive(channel))

    def _decode(self, message: dict[str, Any]) -> None:
        try:
            decoded = _decode(message["b"])
        except (KeyError, TypeError, msgspec.MsgspecError):
            logger.warning("a message on the bus is not ours", extra={"action": "bus_foreign"})
            return
        self._deliver(decoded)

    def _deliver(self, message: Message | Probe) -> None:
        self._received_at = asyncio.get_running_loop().time()
        self._received.set()
        if not isinstance(message, Probe):
            self.counters.heard += 1
            self._receive(message)

    async def _replace_layer(self) -> None:
        # Its locks or its receiving task may be stuck, so the object is replaced.
        old, self._layer = self._layer, own_layer(self._alias)
        await self._let_go(old)

    async def _let_go(self, layer: Any) -> None:
        if layer is get_channel_layer(self._alias):
            return
        try:
            async with asyncio.timeout(self.timing.call):
                await let_go(layer)
        except Exception as error:
            logger.debug("layer not closed: %s", error, extra={"action": "bus_close_failed"})

    def _failed(self, error: Exception) -> None:
        self.counters.layer_failures += 1
        self._outage.failed(error)
