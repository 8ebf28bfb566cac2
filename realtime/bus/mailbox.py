"""A named channel on a layer of its own, for messages to one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from channels.layers import InMemoryChannelLayer

from realtime.bus.layers import CALL_SECONDS, let_go, own_layer
from realtime.util.outage_log import OutageLog

logger = logging.getLogger("realtime.layers")

_PING = "realtime.ping"
# After so many pings in a row that do not arrive, the layer object counts as stuck.
_LOST_PINGS = 2


@dataclass(frozen=True, slots=True)
class MailboxTiming:
    """Durations in seconds. A mailbox that has received nothing for `silence` sends itself a
    message, which must arrive within `call`; after a failure it waits for `retry`."""

    silence: float = 15.0
    call: float = CALL_SECONDS
    retry: float = 1.0


class Mailbox:
    """A channel with a fixed name that receives, and sends to others. On one event loop.

    The names contain no "!", so that on Redis each is a queue of its own. A layer may stop
    receiving without an error, as after a Redis that hung. So a silent mailbox sends itself a
    message, and replaces a layer that does not deliver it.
    """

    timing = MailboxTiming()

    def __init__(self, alias: str, name: str, receive: Callable[[dict[str, Any]], None]) -> None:
        self.name = name
        self._alias = alias
        self._layer = own_layer(alias)
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._received = asyncio.Event()
        self._outage = OutageLog(
            logger,
            failing=f"nothing can be received as {name}: %s",
            failing_action="mailbox_failing",
            works=f"messages can be received again as {name}",
            works_action="mailbox_works",
        )

    async def open(self) -> None:
        """Start receiving. Does nothing without a layer, or when it is open already."""
        if self._layer is None or self._task is not None:
            return
        self._task = asyncio.create_task(self._keep(), name="rowcast-mailbox")
        # The subscription is sent before anything that the caller sends next.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop receiving, and close the layer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=2 * self.timing.call)
            self._task = None
        await self._let_go(self._layer)

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send to a channel. Raises ConnectionError without a layer, TimeoutError when it does not
        answer, or what the layer raises."""
        if self._layer is None:
            raise ConnectionError("there is no channel layer")
        async with asyncio.timeout(self.timing.call):
            await self._layer.send(channel, message)

    # --- receiving ------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            listening = asyncio.create_task(self._listen(), name="rowcast-mailbox-listener")
            try:
                await self._until_stuck()
            finally:
                # A layer that does not answer may delay even the cancellation.
                listening.cancel()
                await asyncio.wait({listening}, timeout=self.timing.call)
            old, self._layer = self._layer, own_layer(self._alias)
            await self._let_go(old)

    async def _until_stuck(self) -> None:
        """Return when messages that the mailbox sends to itself do not arrive."""
        if isinstance(self._layer, InMemoryChannelLayer):
            await asyncio.Event().wait()
        lost = 0
        while lost < _LOST_PINGS:
            self._received.clear()
            if lost == 0:
                silence = self.timing.silence * random.uniform(1.0, 1.5)
                if await self._receives_within(silence):
                    continue
            try:
                await self.send(self.name, {"type": _PING})
            except Exception as error:
                self._outage.failed(error)
                await asyncio.sleep(self.timing.retry)
                continue
            if await self._receives_within(self.timing.call):
                lost = 0
            else:
                lost += 1
                self._outage.failed(TimeoutError("messages are sent and do not arrive"))

    async def _receives_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._received.wait()
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> None:
        layer = self._layer
        while True:
            try:
                message = await layer.receive(self.name)
            except Exception as error:
                self._outage.failed(error)
                await asyncio.sleep(self.timing.retry)
                continue
            self._outage.worked()
            self._received.set()
            if message.get("type") == _PING:
                continue
            try:
                self._receive(message)
            except Exception:
                logger.exception("a message failed", extra={"action": "mailbox_message_failed"})

    async def _let_go(self, layer: Any) -> None:
        if layer is None or isinstance(layer, InMemoryChannelLayer):
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self.timing.call):
                await let_go(layer)
