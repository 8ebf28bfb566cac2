"""The presence of a topic is what the table and the log say together, whatever was missed."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import nullcontext
from typing import Any

import pytest

from realtime.topics.presence import tracker
from realtime.topics.presence.state import PresenceMeta
from realtime.topics.presence.tracker import PresenceTracker
from realtime.util.database_threads import close_connections
from tests.support.subscriptions import FakeSubscriber
from tests.support.waiting import PATIENCE_SECONDS, auntil


class Table:
    """Rows of one topic, and reads of them that end when they are let go."""

    def __init__(self) -> None:
        self.rows: list[PresenceMeta] = []
        self.reads = 0
        self.go = threading.Event()

    def read(self, *topic: Any) -> list[PresenceMeta]:
        found = list(self.rows)
        self.reads += 1
        assert self.go.wait(PATIENCE_SECONDS)
        return found


@pytest.mark.parametrize("again", [False, True], ids=["first read", "read again"])
async def test_changes_that_were_missed_while_a_topic_is_read_are_in_its_state(
    monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    table = Table()
    monkeypatch.setattr(tracker, "read", table.read)
    presence = PresenceTracker("default")
    if again:
        table.go.set()
    async with presence.loaded("room", False) if again else nullcontext():
        listener = FakeSubscriber()
        if again:
            presence.join(listener, "room", False)
            table.go.clear()
            presence.reload()
        coming = asyncio.create_task(_state(presence))
        await auntil(lambda: table.reads == 1 + again, "a read that has begun")
        table.rows.append(PresenceMeta("one", 1, "ann", b"{}"))
        # As after a batch that could not be read from the log.
        presence.reload()
        table.go.set()
        assert list(await coming) == ["ann"]
    await presence.stop()
    await close_connections()


async def _state(presence: PresenceTracker) -> Any:
    async with presence.loaded("room", False):
        return json.loads(presence.join(FakeSubscriber("another"), "room", False))
