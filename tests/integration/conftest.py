"""Fixtures of the tests that meet a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from channels.layers import get_channel_layer
from django.test import override_settings

from realtime.bus.layers import let_go
from realtime.wal import published
from tests.support.layers import layers
from tests.support.socket_client import Client
from tests.support.topics import TOPIC


@pytest.fixture
def declarations() -> Iterator[None]:
    """What the test declares is forgotten."""
    kept = dict(published.declarations)
    yield
    published.declarations.clear()
    published.declarations.update(kept)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Any]]:
    """Connects clients, `await connect(token=...)`, and closes them at the end."""
    clients: list[Client] = []

    async def make(**options: Any) -> Client:
        clients.append(await Client(**options).connect())
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Any]]:
    """Connects clients that join a topic, and closes them at the end."""
    clients: list[Client] = []

    async def make(topic: str = TOPIC, config: Any = None, **options: Any) -> Client:
        client = await Client(**options).connect()
        clients.append(client)
        reply = await client.join(topic, **(config or {}))
        assert reply["status"] == "ok", reply
        return client

    yield make
    for client in clients:
        await client.close()


@pytest.fixture(params=["memory", "core", "pubsub"])
async def layer(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The test once with each kind of channel layer."""
    url = "" if request.param == "memory" else request.getfixturevalue("redis").url
    with override_settings(CHANNEL_LAYERS=layers(request.param, url)):
        yield request.param
        await let_go(get_channel_layer())
