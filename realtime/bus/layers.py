"""Channel layers of our own, and named boxes on them.

A layer of our own, because its queues, locks and receiving tasks are not shared with the bus or
with the rest of the project: what is slow here holds up nothing there.
"""

from __future__ import annotations

from typing import Any

from channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer

CALL_SECONDS = 2.0


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
        patience = blocks_for + CALL_SECONDS
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
