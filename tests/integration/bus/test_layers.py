"""What the checks say of channel layers."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from realtime.checks import check_layer

CORE = "channels_redis.core.RedisChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
MEMORY = "channels.layers.InMemoryChannelLayer"
URL = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("backend", "hosts", "found"),
    [
        (CORE, [URL], ["realtime.W010"]),
        (CORE, [{"address": URL, "socket_timeout": 3}], ["realtime.W010"]),
        (CORE, [{"address": URL, "socket_timeout": 7}], []),
        (CORE, [{"address": URL, "socket_timeout": None}], []),
        (CORE, [{"address": URL, "socket_timeout": 7}, URL], ["realtime.W010"]),
        (PUBSUB, [URL], []),
        (MEMORY, None, []),
        ("nowhere.Layer", None, ["realtime.W013"]),
    ],
)
def test_a_layer_that_fails_while_it_is_idle_is_warned_of(
    backend: str, hosts: Any, found: list[str]
) -> None:
    config = {} if hosts is None else {"hosts": hosts}
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": backend, "CONFIG": config}}):
        assert [message.id for message in check_layer()] == found


def test_without_layers_there_is_nothing_to_say() -> None:
    with override_settings(CHANNEL_LAYERS={}):
        assert check_layer() == []
