"""The presence of a topic is what the table and the log say together, whatever was missed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
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


@pytest.mark.parametrize(
    ("waiting", "stored", "called"),
    [
        ([1], 1, [1]),
        ([1, 2], 2, [1, 2]),
        ([1, 3], 2, [1]),
        ([1, None], None, [1, None]),
        ([None, 2], 2, [None, 2]),
        # Not written yet, or not deleted yet: that comes by the log.
        ([1], None, []),
        ([None], 1, []),
    ],
)
async def test_who_waits_for_a_change_that_was_missed_is_called_once_the_table_has_it(
    monkeypatch: pytest.MonkeyPatch,
    waiting: list[int | None],
    stored: int | None,
    called: list[int | None],
) -> None:

    def versions(alias: str, members: Sequence[str]) -> dict[str, int]:
        return {} if stored is None else dict.fromkeys(members, stored)

    monkeypatch.setattr(tracker, "versions", versions)
    presence = PresenceTracker("default")
    found: list[int | None] = []
    for version in waiting:
        presence.expect("one", version, partial(found.append, version))
    # The last one, which is due in any case.
    presence.expect("two", stored, partial(found.append, -1))
    presence.reload()
    await auntil(lambda: -1 in found, "the call of the last one")
    assert found == [*called, -1]
    await presence.stop()
    await close_connections()
