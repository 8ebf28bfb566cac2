"""What joins leave in the memory of a process is bounded for an address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime.delivery.inbound_bytes import InboundBytes, InboundHolding
from realtime.process.hub import hub
from realtime.protocol.errors import CloseCode
from realtime.socket import connection
from tests.support.socket_client import Client, closed
from tests.support.waiting import auntil

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

# Its key is kept as long as the channel; so would be its refs, and names of tables.
LARGE = {"presence": {"key": "k" * 100_000}}


async def connected(address: str = "10.0.0.1") -> Client:
    client = Client()
    client.raw.scope["client"] = (address, 1)
    return await client.connect()


async def test_the_joins_of_an_address_are_bounded_together_and_small_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = InboundBytes(each=450_000)

    def holding(account: str, give_way: Callable[[], None]) -> InboundHolding:
        return InboundHolding(ledger, account, give_way)

    monkeypatch.setattr(connection, "join_holding_of", holding)
    small, elsewhere = await connected(), await connected("10.0.0.2")
    assert (await small.join())["status"] == "ok"
    assert (await elsewhere.join(**LARGE))["status"] == "ok"
    large = [await connected() for _ in range(6)]
    for client in large[:4]:
        assert (await client.join(**LARGE))["status"] == "ok"
    for client in large[4:]:
        await client.push("realtime:room", "phx_join", {"config": LARGE})
        assert await closed(client) == CloseCode.TOO_MANY
    # A leave gives back what the join had.
    first, second = large[:2]
    await first.reply(await first.push("realtime:room", "phx_leave", {}, join_ref="1"))
    assert (await second.join("realtime:another", **LARGE))["status"] == "ok"
    for client in (small, elsewhere):
        assert (await client.join("realtime:another"))["status"] == "ok"
    for client in (small, elsewhere, *large[:4]):
        await client.close()
    await auntil(lambda: not hub().sockets)
    await auntil(lambda: ledger.total == 0)
