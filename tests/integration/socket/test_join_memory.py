"""What joins, and messages that wait for them, have in the memory of a process is bounded for an
address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from realtime.delivery.inbound_bytes import SMALL_JOIN_BYTES, InboundBytes, InboundHolding
from realtime.process.hub import hub
from realtime.protocol.errors import CloseCode
from realtime.socket import connection
from tests.support.socket_client import Client, closed
from tests.support.tokens import token
from tests.support.waiting import auntil

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

# Its key is kept as long as the channel; so would be its refs, and names of tables.
LARGE = {"presence": {"key": "k" * 100_000}}


async def connected(address: str = "10.0.0.1") -> Client:
    client = Client()
    client.raw.scope["client"] = (address, 1)
    return await client.connect()


def counted(monkeypatch: pytest.MonkeyPatch, each: int) -> InboundBytes:
    """What counts from here on, of which an address may have `each` bytes."""
    ledger = InboundBytes(each, small=SMALL_JOIN_BYTES)

    def holding(account: str, give_way: Callable[[], None]) -> InboundHolding:
        return InboundHolding(ledger, account, give_way)

    monkeypatch.setattr(connection, "join_holding_of", holding)
    return ledger


async def test_the_joins_of_an_address_are_bounded_together_and_small_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = counted(monkeypatch, each=450_000)
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


async def test_pages_behind_one_address_do_not_count_and_one_with_large_joins_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = counted(monkeypatch, each=200_000)
    hostile = await connected()
    for number in range(4):
        key = {"key": "k" * 1_000_000}
        assert (await hostile.join(f"realtime:{number}", presence=key))["status"] == "ok"
    held = ledger.total
    assert held > 4_000_000
    pages = [await connected() for _ in range(12)]
    access_token = token(name="n" * 700)
    assert len(access_token) > 1_000
    for number in range(15):
        for page in pages:
            reply = await page.join(f"realtime:{number}", access_token=access_token)
            assert reply["status"] == "ok"
    # They have more than the address may have, but each of them little.
    assert ledger.total == held
    modest = await connected()
    assert (await modest.join(presence={"key": "k" * 80_000}))["status"] == "ok"
    assert await closed(hostile) == CloseCode.TOO_MANY
    assert 80_000 < ledger.total < 100_000
    for client in (modest, *pages):
        assert (await client.join("realtime:another"))["status"] == "ok"
        await client.close()


async def test_messages_that_wait_for_a_join_count_until_they_are_dealt_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = counted(monkeypatch, each=450_000)
    first, second = await connected(), await connected()
    answered = asyncio.Event()

    async def ready() -> None:
        await answered.wait()

    monkeypatch.setattr(hub(), "ready", ready)
    message = {"type": "broadcast", "event": "e", "payload": {"x": "x" * 60_000}}
    refs = [
        await client.push("realtime:room", "phx_join", {"config": {}}) for client in (first, second)
    ]
    for _ in range(3):
        await first.push("realtime:room", "broadcast", message, join_ref=refs[0])
    await auntil(lambda: 180_000 < ledger.total < 185_000)
    # Of two sockets one goes that has more than its part.
    for _ in range(5):
        await second.push("realtime:room", "broadcast", message, join_ref=refs[1])
    assert await closed(second) == CloseCode.TOO_MANY
    assert 180_000 < ledger.total < 185_000
    answered.set()
    assert (await first.reply(refs[0]))["status"] == "ok"
    await auntil(lambda: ledger.total == 0)
    # Its channel stays joined.
    ref = await first.push("realtime:room", "phx_leave", {}, join_ref=refs[0])
    assert (await first.reply(ref))["status"] == "ok"
    await first.close()
