"""CHANNEL_LAYERS of each kind. Imported by settings of servers too, so without pytest."""

from __future__ import annotations

from typing import Any

_BACKENDS = {
    "memory": "channels.layers.InMemoryChannelLayer",
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}


def layers(kind: str, url: str) -> dict[str, Any]:
    """CHANNEL_LAYERS for a kind: memory, core or pubsub."""
    config: dict[str, Any] = {"hosts": [url]} if kind != "memory" else {}
    return {"default": {"BACKEND": _BACKENDS[kind], "CONFIG": config}}
