"""Many writers and many listeners at once: each hears its own, all of it, in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from typing import Any

import pytest

from tests.acceptance.support.orm_process import OrmProcess
from tests.acceptance.support.raw_client import RawClient
from tests.support.tokens import token

ALL = {"event": "*", "schema": "public", "table": "zoo_note"}
# How many changes each writer commits at a time.
TRANSACTIONS = (50, 25, 10, 5)
WRITERS = len(TRANSACTIONS)
LISTENERS = 20
CHANGES = 20_000
EACH = CHANGES // LISTENERS


async def heard_all(peer: RawClient) -> None:
    """Returns when as many changes have come as were written for this listener."""
    count = 0

    def counted(frame: Any) -> bool:
        nonlocal count
        count += frame.event == "postgres_changes"
        return count == EACH

    await peer.until(counted, patience=400)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "fanout"])
async def test_twenty_listeners_each_hear_their_own_of_twenty_thousand_changes(
    fresh: Any, kind: str
) -> None:
    world = fresh(kind)
    people = [world.orm.user(f"listener {n}") for n in range(LISTENERS)]
    async with contextlib.AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(await RawClient.open(world.server)) for _ in people
        ]
        for peer, person in zip(peers, people, strict=True):
            await peer.join("mine", ALL, token=token(person))
        _, before = world.orm.head()
        orms = [OrmProcess(world.server.database) for _ in range(WRITERS)]
        for writer, orm in enumerate(orms):
            stack.callback(orm.close)
            size = TRANSACTIONS[writer]
            orm.begin("write_notes", writer, CHANGES // WRITERS, people, per_transaction=size)
        await asyncio.gather(*[asyncio.to_thread(orm.finish) for orm in orms])
        await asyncio.gather(*[heard_all(peer) for peer in peers])

        log = world.orm.log()
        numbers = [seq for seq, *_ in log]
        assert numbers == list(range(before + 1, before + CHANGES + 1))
        moments = [moment for _, moment, *_ in log]
        assert all(earlier < later for earlier, later in itertools.pairwise(moments))

        heard: Counter[str] = Counter()
        for peer, person in zip(peers, people, strict=True):
            changes = peer.changes()
            assert {frame.data["record"]["owner_id"] for frame in changes} == {person}
            seqs = [frame.data["seq"] for frame in changes]
            assert seqs == sorted(set(seqs)) and len(seqs) == EACH
            heard.update(frame.data["record"]["title"] for frame in changes)
            for writer in range(WRITERS):
                titles = [frame.data["record"]["title"].split(":") for frame in changes]
                order = [int(number) for by, number in titles if int(by) == writer]
                assert order == sorted(order)
        per_writer = CHANGES // WRITERS
        written = {f"{w}:{n}" for w in range(WRITERS) for n in range(per_writer)}
        assert heard.keys() == written and heard.total() == CHANGES
        assert "Traceback" not in world.server.log
