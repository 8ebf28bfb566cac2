"""Fixtures of the tests that meet a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.support.socket_client import Client
from tests.support.topics import TOPIC


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
