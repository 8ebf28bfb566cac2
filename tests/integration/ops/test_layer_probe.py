"""The probe of the channel layer: a message to itself comes back, or it says why not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from channels.layers import get_channel_layer
from django.test import override_settings

from realtime.bus.layers import let_go, own_layer
from realtime.ops.layer_probe import probe
from tests.support import redis as redises
from tests.support.layers import layers
from tests.support.redis import Redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redises.running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "core", "pubsub"])
async def layer(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    url = "" if request.param == "memory" else request.getfixturevalue("redis").url
    with override_settings(CHANNEL_LAYERS=layers(request.param, url)):
        yield request.param
        await let_go(get_channel_layer())


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
