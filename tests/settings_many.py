"""Settings of the processes of a whole deployment under test: `settings_server`, on the database of
DATABASE_URL, with a Redis channel layer of either kind."""

from __future__ import annotations

import os

from tests.settings_server import *  # noqa: F403

_LAYERS = {
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": _LAYERS[os.environ.get("ROWCAST_LAYER", "pubsub")],
        "CONFIG": {"hosts": [os.environ["REDIS_URL"]]},
    }
}
