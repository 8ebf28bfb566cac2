"""Channel layers of our own, and named boxes on them.

A layer of our own, because its queues, locks and receiving tasks are not shared with the bus or
with the rest of the project: what is slow here holds up nothing there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer

logger = logging.getLogger("realtime.layers")

_CALL_SECONDS = 2.0
_RETRY_SECONDS = 1.0


def own_layer(alias: str) -> Any:
    """A layer of this alias that nobody else uses; None when there is none.

    The in-memory layer is the project's own, since its instances do not hear each other.
    """
    shared = get_channel_layer(alias)
    if shared is None or isinstance(shared, InMemoryChannelLayer):
        return shared
    layer: Any = channel_layers.make_backend(alias)
    blocks_for = getattr(layer, "brpop_timeout", None)
    if blocks_for is not None:
        # redis-py 8 gives up on a read after five seconds, as long as this layer waits for a
        # message: without a longer one, silence would look like a failure.
        patience = blocks_for + _CALL_SECONDS
        layer.hosts = [{"socket_timeout": patience, **host} for host in layer.hosts]
    return layer


def reaches_others(alias: str) -> bool:
    """Whether what is sent on this layer can arrive in another process."""
    layer = get_channel_layer(alias)
    return layer is not None and not isinstance(layer, InMemoryChannelLayer)


async def let_go(layer: Any) -> None:
    """Close the connections of a layer of our own, and delete nothing on its server."""
    try:
        from channels_redis.core import RedisChannelLayer
        from channels_redis.pubsub import RedisPubSubChannelLayer
    except ImportError:
        return
    if isinstance(layer, RedisChannelLayer):
        await layer.close_pools()
    elif isinstance(layer, RedisPubSubChannelLayer):
        # Unlike that of the core layer, this flush concerns the process only.
        await layer.flush()


class Mailbox:
    """A channel with a fixed name, and a way to send to others. On one event loop.

    The names have no "!", so that on Redis each is a queue of its own.
    """

    def __init__(self, alias: str, name: str, receive: Callable[[dict[str, Any]], None]) -> None:
        self.name = name
        self._layer = own_layer(alias)
        self._receive = receive
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start to receive. Nothing happens without a layer, or when it is open already."""
        if self._layer is None or self._task is not None:
            return
        self._task = asyncio.create_task(self._listen(), name="rowcast-mailbox")
        # Its subscription goes out before anything that is sent from here on.
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop to receive, and let go of the layer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CALL_SECONDS)
            self._task = None
        if self._layer is not None and not isinstance(self._layer, InMemoryChannelLayer):
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CALL_SECONDS):
                    await let_go(self._layer)

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Raises ConnectionError without a layer, TimeoutError when it does not answer, or what
        the layer raises."""
        if self._layer is None:
            raise ConnectionError("there is no channel layer")
        async with asyncio.timeout(_CALL_SECONDS):
            await self._layer.send(channel, message)

    async def _listen(self) -> None:
        failing = False
        while True:
            try:
                message = await self._layer.receive(self.name)
                failing = False
            except Exception as error:
                if not failing:
                    logger.warning(
                        "nothing can be received as %s: %s",
                        self.name,
                        error,
                        extra={"action": "mailbox_failing"},
                    )
                failing = True
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            try:
                self._receive(message)
            except Exception:
                logger.exception("a message failed", extra={"action": "mailbox_message_failed"})
