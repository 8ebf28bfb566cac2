"""The channel layer as a bus between processes: bytes of ours, one message per batch.

Each server process has one channel in the group `realtime.events`; sockets have none. The layer
may lose, double, delay or reorder a message: every batch says where it stands, so the dispatcher
notices and reads the log itself. Without a layer the bus reaches its own process only.

A layer gives no sign when it has forgotten a group, or stopped to listen after a reconnect. So a
process that has heard nothing for a while says something itself: who does not hear that joins
again. Nothing here waits for a layer longer than a moment; while one does not answer, sending fails
at once and a task of the bus keeps asking.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import msgspec
from channels.layers import InMemoryChannelLayer, get_channel_layer

from realtime.bus.layers import let_go, own_layer
from realtime.event_log.batch import Batch
from realtime.topics.broadcast import BroadcastBatch
from realtime.util.counters import Counters
from realtime.util.tasks import cancelled

logger = logging.getLogger("realtime.bus")

GROUP = "realtime.events"
_MESSAGE_TYPE = "realtime.batch"

# How long the layer may take for one call, and a message from here to here.
_CALL_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_MOMENT_SECONDS = 0.001
# A message of anybody ends the silence of everybody, so about one probe passes in this time,
# however many processes there are.
_SILENCE_SECONDS = 4.0
# A layer forgets members that are not added again (`group_expiry`, a day unless set).
_REFRESH_SECONDS = 60.0
# Joining in vain this often, while sending works, the layer itself is stuck.
_PATIENCE = 3
# Redis cuts a subscriber off when a few of these wait for it. Servers read the log instead.
_MOST_BYTES = 4 * 1024 * 1024


class Probe(msgspec.Struct, frozen=True, array_like=True, tag="probe"):
    """Says nothing. Who hears it is on the bus."""


class LayerDown(ConnectionError):
    """The channel layer does not answer; what was to be sent was not."""


Message = Batch | BroadcastBatch
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch | BroadcastBatch | Probe).decode


class Bus:
    """One process's end of the bus. All methods are called on its event loop."""

    def __init__(
        self,
        alias: str,
        receive: Callable[[Message], None],
        counters: Counters | None = None,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """`busy`: whether broadcasts wait where they are received. Where that is here alone, more
        are held back until it is not: in the queue of who sends, which refuses what is too much."""
        self._alias = alias
        self._busy = busy
        self._layer: Any = own_layer(alias)
        self._receive = receive
        self.counters = Counters() if counters is None else counters
        self._trouble: str | None = None
        self._mute = False
        self._recovery: asyncio.Task[None] | None = None
        # Only when joined:
        self._keeper: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._channel = ""
        self._added_at = 0.0
        self._heard_at = 0.0
        self._heard = asyncio.Event()
        self._doubted = asyncio.Event()

    @property
    def healthy(self) -> bool:
        """Whether what is sent arrives, as far as this process knows."""
        return self._trouble is None

    async def join(self) -> None:
        """Start to receive. Returns when this process hears itself, or when the layer fails."""
        if self._layer is None or self._keeper is not None:
            return
        answered = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(answered), name="rowcast-bus")
        await answered.wait()

    async def leave(self) -> None:
        """Stop to receive."""
        tasks = [task for task in (self._keeper, self._recovery) if task is not None]
        await cancelled(tasks)
        if self._keeper is not None:
            await self._exit()
        self._keeper = self._recovery = None
        await self._let_go(self._layer)

    def doubt(self) -> None:
        """Something did not come that should have: find out whether anything does."""
        self._doubted.set()

    async def publish(self, message: Message) -> None:
        """Send to every process, this one included. Raises LayerDown, or what the layer raises."""
        if self._mute:
            raise LayerDown("the channel layer does not answer")
        if isinstance(message, BroadcastBatch):
            while self._busy() and self._is_alone():
                await asyncio.sleep(_MOMENT_SECONDS)
            if self._is_alone():
                self._hear(message)
                return
        elif self._layer is None:
            self._hear(message)
            return
        try:
            await self._send(message)
        except Exception as error:
            self._mute = True
            self._failed(error)
            if self._keeper is not None:
                self.doubt()
            elif self._recovery is None or self._recovery.done():
                self._recovery = asyncio.create_task(self._recover(), name="rowcast-bus-recovery")
            raise

    # --- sending --------------------------------------------------------------------------------

    def _is_alone(self) -> bool:
        """Whether what is sent would come back to here and to nobody else, some turns of the loop
        later, which is nearly half of the time until the first socket is written to."""
        layer = self._layer
        if layer is None:
            return True
        if type(layer) is not InMemoryChannelLayer:
            return False
        waiting = layer.channels.get(self._channel)
        return layer.groups.get(GROUP, {}).keys() == {self._channel} and (
            # What was sent before comes before.
            waiting is None or waiting.empty()
        )

    async def _send(self, message: Message | Probe) -> None:
        body = _encode(message)
        if len(body) > _MOST_BYTES and isinstance(message, Batch) and message.rows:
            body = _encode(Batch(message.epoch, message.rows[-1].seq, [], []))
        async with asyncio.timeout(_CALL_SECONDS):
            await self._layer.group_send(GROUP, {"type": _MESSAGE_TYPE, "b": body})
        self._mute = False

    async def _recover(self) -> None:
        # For a process that only sends. One that listens has the keeper.
        while self._mute:
            await asyncio.sleep(_RETRY_SECONDS)
            try:
                await self._send(Probe())
            except Exception as error:
                self._failed(error)
        self._works()

    # --- hearing --------------------------------------------------------------------------------

    async def _keep(self, answered: asyncio.Event) -> None:
        vain = 0
        while True:
            try:
                if self._listener is None:
                    await self._enter()
                if await self._hears():
                    vain = 0
                    self._works()
                    answered.set()
                    await self._settled()
                    continue
                # Sent, and not heard by the sender.
                vain += 1
                self._failed(LayerDown("nothing is heard from it"))
            except Exception as error:
                self._failed(error)
            answered.set()
            await self._exit()
            if vain >= _PATIENCE:
                vain = 0
                await self._replace_layer()
            await asyncio.sleep(_RETRY_SECONDS)
            self.counters.rejoins += 1

    async def _enter(self) -> None:
        async with asyncio.timeout(_CALL_SECONDS):
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
            # A layer that does not answer may hold up even the cancelling.
            listener.cancel()
            await asyncio.wait({listener}, timeout=_CALL_SECONDS)
        if channel:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    await self._layer.group_discard(GROUP, channel)
            except Exception as error:
                logger.debug("group not left: %s", error, extra={"action": "bus_leave_failed"})

    async def _hears(self) -> bool:
        self._heard.clear()
        self._doubted.clear()
        await self._send(Probe())
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._heard.wait()
        except TimeoutError:
            return False
        return True

    async def _settled(self) -> None:
        """Return when hearing has to be proved again. Raises what the listener raised."""
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        silence = _SILENCE_SECONDS * random.uniform(1.0, 1.5)
        doubted = asyncio.create_task(self._doubted.wait())
        try:
            while (left := self._heard_at + silence - loop.time()) > 0:
                done, _ = await asyncio.wait(
                    (self._listener, doubted),
                    timeout=left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if self._listener in done:
                    await self._listener
                if doubted in done:
                    return
                if loop.time() - self._added_at > _REFRESH_SECONDS:
                    async with asyncio.timeout(_CALL_SECONDS):
                        await self._add()
        finally:
            doubted.cancel()

    async def _listen(self, channel: str) -> None:
        # Takes as fast as the layer gives: what waits in a layer may be dropped there.
        while True:
            self._take(await self._layer.receive(channel))

    def _take(self, message: dict[str, Any]) -> None:
        try:
            decoded = _decode(message["b"])
        except (KeyError, TypeError, msgspec.MsgspecError):
            logger.warning("a message on the bus is not ours", extra={"action": "bus_foreign"})
            return
        self._hear(decoded)

    def _hear(self, message: Message | Probe) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._heard.set()
        if not isinstance(message, Probe):
            self.counters.heard += 1
            self._receive(message)

    async def _replace_layer(self) -> None:
        # Its locks or its receiving task may be what is stuck; nothing of it is kept.
        old, self._layer = self._layer, own_layer(self._alias)
        await self._let_go(old)

    async def _let_go(self, layer: Any) -> None:
        if layer is get_channel_layer(self._alias):
            return
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await let_go(layer)
        except Exception as error:
            logger.debug("layer not closed: %s", error, extra={"action": "bus_close_failed"})

    # --- state ----------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> None:
        # One line per change of state, however long an outage lasts.
        self.counters.layer_failures += 1
        if self._trouble is None:
            text = str(error) or type(error).__name__
            logger.warning(
                "channel layer failed: %s; servers read the log themselves",
                text,
                extra={"action": "bus_down"},
            )
            self._trouble = text

    def _works(self) -> None:
        if self._trouble is not None:
            logger.info("channel layer works again", extra={"action": "bus_up"})
        self._trouble = None
