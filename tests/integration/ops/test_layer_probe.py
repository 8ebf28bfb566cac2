"""The probe of the channel layer: a message to itself comes back, or it says why not."""

from __future__ import annotations

import pytest
from django.test import override_settings

from realtime.bus.layers import own_layer
from realtime.ops.layer_probe import probe
from tests.support.layers import layers
from tests.support.redis import Redis


async def test_a_probe_comes_back(layer: str) -> None:
    found = await probe()
    assert found.state == ("in-memory" if layer == "memory" else "ok"), found
    assert layer == "memory" or found.ms is not None


async def test_silence_on_the_core_layer_is_no_failure(redis: Redis) -> None:
    # redis-py 8 reads for five seconds unless told otherwise, which is what the layer waits for.
    with override_settings(CHANNEL_LAYERS=layers("core", redis.url)):
        own = own_layer("default")
        assert own.hosts[0]["socket_timeout"] > own.brpop_timeout


@pytest.mark.parametrize("kind", ["core", "pubsub"])
async def test_a_probe_of_a_layer_that_is_down_says_so(kind: str) -> None:
    with override_settings(CHANNEL_LAYERS=layers(kind, "redis://127.0.0.1:1/0")):
        found = await probe(timeout=1.0)
    assert found.state == "down"
    assert found.error
