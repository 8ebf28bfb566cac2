"""What one client costs a process."""

from __future__ import annotations

import json

import pytest

from realtime.protocol.errors import CloseCode
from tests.support.socket_client import Client

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


async def test_large_messages_of_one_address_that_wait_are_bounded_together() -> None:
    clients = [Client() for _ in range(40)]
    for number, client in enumerate(clients):
        client.raw.scope["client"] = ["192.0.2.1", number]
        await client.connect()
    said = json.dumps(["1", "1", "realtime:room", "phx_join", {"config": "x" * 1_000_000}])
    for client in clients:
        await client.raw.send_to(text_data=said)
    ends = [await client.receive() for client in clients]
    # Some are read at once, others wait, and for the rest there is no room.
    assert 0 < ends.count(CloseCode.TOO_MANY) < 30
    for client, end in zip(clients, ends, strict=True):
        if end != CloseCode.TOO_MANY:
            await client.close()
