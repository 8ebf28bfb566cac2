"""The probe of the channel layer: a message to itself comes back, or it says why not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

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


class LateSubscription:
    """A layer whose first message waits for the subscription, with a clock of its own."""

    seconds = 0.0

    def __init__(self) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._subscribed = False

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        await self._messages.put(message)

    async def receive(self, channel: str) -> dict[str, Any]:
        message = await self._messages.get()
        LateSubscription.seconds += 0.001 if self._subscribed else 0.1
        self._subscribed = True
        return message


async def test_the_time_of_a_probe_is_that_of_a_message_and_not_of_the_subscription(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(perf_counter=lambda: LateSubscription.seconds)
    monkeypatch.setattr("realtime.ops.layer_probe.time", clock)
    backend = f"{LateSubscription.__module__}.{LateSubscription.__qualname__}"
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": backend}}):
        found = await probe()
    assert (found.state, found.ms) == ("ok", 1.0)


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
