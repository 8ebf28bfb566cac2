"""Settings of the processes of a whole deployment under test: `settings_server`, on the database of
DATABASE_URL, with a Redis channel layer of either kind."""

from __future__ import annotations

import os

from tests.settings_server import *  # noqa: F403
from tests.support.layers import layers

CHANNEL_LAYERS = layers(os.environ.get("ROWCAST_LAYER", "pubsub"), os.environ["REDIS_URL"])
