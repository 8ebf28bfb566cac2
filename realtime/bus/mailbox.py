"""A named channel on a layer of its own, for messages to one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from channels.layers import InMemoryChannelLayer

from realtime.bus.layers import CALL_SECONDS, let_go, own_layer
from realtime.util.outage_log import OutageLog

logger = logging.getLogger("realtime.layers")

_RETRY_SECONDS = 1.0


class Mailbox:
    """A channel with a fixed name that receives, and sends to others. On one event loop.

    The names contain no "!", so that on Redis each is a queue of its own.
    """

    def __init__(self, alias: str, name: str, receive: Callable[[dict[str, Any]], None]) -> None:
        self.name = name
        self._layer = own_layer(alias)
        self._receive = receive
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start to receive. Does nothing without a layer, or when it is open already."""
        if self._layer is None or self._task is not None:
            return
        self._task = asyncio.create_task(self._listen(), name="rowcast-mailbox")
        # The subscription is sent before anything that the caller sends next.
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop receiving, and close the layer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CALL_SECONDS)
            self._task = None
        if self._layer is not None and not isinstance(self._layer, InMemoryChannelLayer):
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CALL_SECONDS):
                    await let_go(self._layer)

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send to a channel. Raises ConnectionError without a layer, TimeoutError when it does not
        answer, or what the layer raises."""
        if self._layer is None:
            raise ConnectionError("there is no channel layer")
        async with asyncio.timeout(CALL_SECONDS):
            await self._layer.send(channel, message)

    async def _listen(self) -> None:
        outage = OutageLog(
            logger,
            failing=f"nothing can be received as {self.name}: %s",
            failing_action="mailbox_failing",
            works=f"messages can be received again as {self.name}",
            works_action="mailbox_works",
        )
        while True:
            try:
                message = await self._layer.receive(self.name)
            except Exception as error:
                outage.failed(error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            outage.worked()
            try:
                self._receive(message)
            except Exception:
                logger.exception("a message failed", extra={"action": "mailbox_message_failed"})
