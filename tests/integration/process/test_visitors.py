"""What a process keeps of clients that came and went: nothing that grows with their number."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from realtime.process.hub import hub
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.support.waiting import auntil

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal", "closing_hub")]

# Of tables that are bounded in number: the ring of events, quotas, accounts of payers, and claims
# of the last subjects, whose marks are kept.
_BOUNDED = {
    "Claims",
    "DatabaseEvent",
    "FairQueue",
    "Quota",
    "RowImage",
    "TokenBucket",
    "_Account",
}


async def visit(number: int) -> None:
    """A client with an address, a user, a filter, topics and an event of its own."""
    client = Client(token=token(f"user {number}", jti=f"{number}"))
    client.raw.scope["client"] = (f"10.0.0.{number}", 1)
    await client.connect()
    topic = f"realtime:room {number}"
    await client.listen(topic=topic, filter=f"title=like.{number}%")
    await client.join(f"{topic} refused", private=True)
    await client.join(f"{topic} too", presence={"key": f"{number}", "enabled": True})
    body = {"event": "track", "payload": {"n": number}}
    await client.reply(await client.push(f"{topic} too", "presence", body))
    await client.push(topic, "broadcast", {"event": f"event {number}", "payload": {}})
    await client.close()


def kept() -> Counter[str]:
    """How many objects there are of each class of ours."""
    gc.collect()
    return Counter(
        type(each).__name__
        for each in gc.get_objects()
        if str(type(each).__module__).startswith(("realtime.", "auth_rls."))
        and type(each).__name__ not in _BOUNDED
    )


async def test_of_clients_that_came_and_went_nothing_is_kept(granted: Callable[..., Any]) -> None:
    await db(granted, "view_note")
    counts = []
    for first in (0, 20, 40):
        for number in range(first, first + 20):
            await visit(number)
        await auntil(lambda: not hub().connections and not len(hub().presence))
        counts.append(kept())
    grown = {name: count for name, count in (counts[2] - counts[1]).items() if count >= 20}
    assert not grown
