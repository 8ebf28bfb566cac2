"""Channel layer objects that only this package uses.

Such a layer shares no queues, locks or receiving tasks with the rest of the project, so neither can
delay the other.
"""

from __future__ import annotations

import logging
from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer

logger = logging.getLogger("realtime.bus")

CALL_SECONDS = 2.0


def own_layer(alias: str) -> Any:
    """A new layer object of this alias; None if none is configured, or it cannot be made, which is
    logged: a server without it goes on for the sockets of its own process.

    An in-memory layer is the project's own object, because two of them do not reach each other.
    """
    problem = layer_problem(alias)
    if problem is not None:
        # Channels treats a layer whose class raises KeyError as no layer, without a message, and
        # other errors are none for each handshake to fail with.
        logger.error("the channel layer %r %s", alias, problem, extra={"action": "bus_down"})
        return None
    shared = get_channel_layer(alias)
    if shared is None or isinstance(shared, InMemoryChannelLayer):
        return shared
    layer: Any = channel_layers.make_backend(alias)
    blocks_for = getattr(layer, "brpop_timeout", None)
    if blocks_for is not None:
        # In redis-py 8 a read times out after five seconds, which is how long this layer waits for
        # a message: without a longer timeout, idleness would look like a failure.
        timeout = blocks_for + CALL_SECONDS
        layer.hosts = [{"socket_timeout": timeout, **host} for host in layer.hosts]
    return layer


def idle_timeout(alias: str) -> tuple[float, float] | None:
    """For a core Redis layer whose reads time out while it waits for a message: the timeout, and
    how long it waits, in seconds. None for any other layer."""
    try:
        import redis

        layer: Any = channel_layers.make_backend(alias)
        waits = layer.brpop_timeout
    except Exception:
        # Another kind of layer, or one that cannot be made, which the server reports.
        return None
    # redis-py has had a time-out unless told otherwise since version 8.
    default = 5.0 if int(redis.__version__.partition(".")[0]) >= 8 else None
    timeouts = [host.get("socket_timeout", default) for host in layer.hosts]
    short = [seconds for seconds in timeouts if seconds is not None and seconds <= waits]
    return (min(short), waits) if short else None


def layer_problem(alias: str) -> str | None:
    """Why the layer of this alias cannot be made; None where it can, or where no layer is
    configured at all."""
    configs = channel_layers.configs
    if not configs and alias == DEFAULT_CHANNEL_LAYER:
        return None
    if alias not in configs:
        known = ", ".join(map(repr, sorted(configs))) or "nothing"
        return f"is not configured: CHANNEL_LAYERS has {known}"
    try:
        channel_layers.make_backend(alias)
    except Exception as error:
        return f"cannot be made: {type(error).__name__}: {error}"
    return None


def reaches_others(alias: str) -> bool:
    """Whether this layer reaches other processes."""
    layer = get_channel_layer(alias)
    return layer is not None and not isinstance(layer, InMemoryChannelLayer)


async def let_go(layer: Any) -> None:
    """Close the connections of a layer that `own_layer` made; nothing is deleted on its server."""
    try:
        from channels_redis.core import RedisChannelLayer
        from channels_redis.pubsub import RedisPubSubChannelLayer
    except ImportError:
        return
    if isinstance(layer, RedisChannelLayer):
        await layer.close_pools()
    elif isinstance(layer, RedisPubSubChannelLayer):
        # Unlike that of the core layer, this flush only affects this process.
        await layer.flush()
