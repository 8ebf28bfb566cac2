"""More than a process can deliver: refused, or read from the log, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from realtime.dispatcher.dispatcher import InboxLimits
from realtime.process.hub import hub
from realtime.topics.broadcast import Broadcast
from realtime.topics.listeners import TopicListeners
from realtime.util.time_slice import SLICE_SECONDS
from tests.support.socket_client import Client, db
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}


async def collect(client: Client, count: int) -> list[str]:
    """The titles of the next changes."""
    return [(await client.change())["record"]["title"] for _ in range(count)]


@pytest.mark.parametrize("layers", [{"default": MEMORY}, {}])
async def test_broadcasts_that_a_process_cannot_deliver_in_time_are_refused_and_none_is_lost(
    settings: Any, monkeypatch: pytest.MonkeyPatch, layers: dict[str, Any]
) -> None:
    settings.CHANNEL_LAYERS = layers
    client = await Client().connect()
    await client.join("realtime:noise")
    home = hub()

    groups = TopicListeners.groups

    def slow(self: Any, *topic: Any) -> Any:
        """A busy process: one broadcast takes as long as it gives to all before others run."""
        time.sleep(2 * SLICE_SECONDS)
        return groups(self, *topic)

    monkeypatch.setattr(TopicListeners, "groups", slow)
    taken = 0
    for turn in range(100):
        for number in range(60):
            taken += home.broadcasts.put(Broadcast("noise", False, f"{turn}.{number}", b"{}", 1))
        await asyncio.sleep(0)
    assert 0 < taken < 6_000
    monkeypatch.undo()
    await auntil(lambda: home.counters.broadcasts_received == taken)
    await client.close()


async def test_what_does_not_fit_into_the_inbox_is_read_from_the_log(granted: Any) -> None:
    hub().dispatcher.inbox_limits = InboxLimits(rows=50)
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    titles = [f"n{number}" for number in range(3_000)]
    await db(Note.objects.bulk_create, [Note(title=title) for title in titles])
    assert await collect(client, 3_000) == titles
    assert hub().counters.inbox_full > 0
    assert hub().counters.resyncs == 0
    await client.close()


async def test_a_row_that_nobody_listens_to_is_not_even_decoded(granted: Any) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    start = await client.listen("zoo_team")
    await db(Note.objects.bulk_create, [Note(title="n") for _ in range(100)])
    await auntil(lambda: hub().counters.events >= 100)
    events = hub().dispatcher.log.since(start["seq"]) or ()
    notes = [event for event in events if event.relation.table == "zoo_note"]
    assert len(notes) == 100
    assert all(event.new is not None and not event.new.decoded for event in notes)
    assert hub().dispatcher.subscriptions.channels.index.evaluated == 0
    await client.close()
