"""Many clients that come back at once, and the others, who are served meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from realtime.process.hub import hub
from tests.support.socket_client import application, db
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal", "closing_hub")]

MANY = 300
BINDING = {"event": "*", "schema": "public", "table": "zoo_note"}


class Crowd:
    """Sockets of one process, and the frames that they get, in the order of sending over all."""

    def __init__(self) -> None:
        #: Number of the socket, and the frame.
        self.frames: list[tuple[int, Any]] = []
        self._inbound: list[asyncio.Queue[Any]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._accepted = 0

    async def connect(self, count: int) -> list[int]:
        """Open so many sockets. Returns their numbers."""
        numbers = range(len(self._tasks), len(self._tasks) + count)
        for number in numbers:
            inbound: asyncio.Queue[Any] = asyncio.Queue()
            inbound.put_nowait({"type": "websocket.connect"})
            self._inbound.append(inbound)
            self._tasks.append(asyncio.create_task(self._serve(number, inbound)))
        await auntil(lambda: self._accepted == len(self._tasks))
        return list(numbers)

    async def _serve(self, number: int, inbound: asyncio.Queue[Any]) -> None:
        async def send(message: Any) -> None:
            if message["type"] == "websocket.accept":
                self._accepted += 1
            elif "text" in message:
                self.frames.append((number, json.loads(message["text"])))

        scope = {
            "type": "websocket",
            "path": "/realtime/v1/websocket",
            "query_string": b"vsn=2.0.0",
            "headers": [],
            "subprotocols": [],
        }
        await application(scope, inbound.get, send)

    def say(self, number: int, topic: str, event: str, payload: Any) -> None:
        """Hand a message of a client to the server."""
        text = json.dumps(["1", "1", topic, event, payload])
        self._inbound[number].put_nowait({"type": "websocket.receive", "text": text})

    def join(self, number: int, **binding: Any) -> None:
        config = {"postgres_changes": [{**BINDING, **binding}]}
        self.say(number, "realtime:room", "phx_join", {"config": config})

    def places(self, **wanted: Any) -> list[int]:
        """At which places of `frames` such payloads are."""
        return [
            place
            for place, (_, frame) in enumerate(self.frames)
            if wanted.items() <= frame[4].items()
        ]

    def of(self, number: int, topic: str, event: str) -> list[int]:
        """At which places of `frames` this socket got this event on this topic."""
        return [
            place
            for place, (to, frame) in enumerate(self.frames)
            if (to, frame[2], frame[3]) == (number, topic, event)
        ]

    async def close(self) -> None:
        for inbound in self._inbound:
            inbound.put_nowait({"type": "websocket.disconnect"})
        await asyncio.gather(*self._tasks)


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    found = Crowd()
    yield found
    await found.close()


async def test_others_are_served_between_the_joins_of_a_herd(granted: Any, crowd: Crowd) -> None:
    await db(granted, "view_note")
    other, listener = await crowd.connect(2)
    for number in (other, listener):
        crowd.say(number, "realtime:talk", "phx_join", {"config": {}})
    await auntil(lambda: len(crowd.places(status="ok")) == 2)
    crowd.frames.clear()
    herd = await crowd.connect(MANY)
    for number in herd:
        crowd.join(number)
    crowd.say(other, "phoenix", "heartbeat", {})
    message = {"type": "broadcast", "event": "ping", "payload": {}}
    crowd.say(other, "realtime:talk", "broadcast", message)
    await auntil(lambda: len(crowd.places(extension="postgres_changes")) == MANY)
    last = max(crowd.places(extension="postgres_changes"))
    assert crowd.of(other, "phoenix", "phx_reply")[0] < last
    assert crowd.of(listener, "realtime:talk", "broadcast")[0] < last


async def test_others_are_served_between_the_replays_of_a_herd(granted: Any, crowd: Crowd) -> None:
    await db(granted, "view_note", using={"is_public": True}, audience="anyone")
    (other,) = await crowd.connect(1)
    crowd.join(other)
    await auntil(lambda: crowd.places(extension="postgres_changes"))
    since = hub().position.seq
    notes = [Note(title=str(number), is_public=True) for number in range(20)]
    await db(Note.objects.bulk_create, notes)
    await auntil(lambda: len(crowd.of(other, "realtime:room", "postgres_changes")) == 20)
    crowd.frames.clear()
    herd = await crowd.connect(MANY)
    for number in herd:
        crowd.join(number, since=since)
    # The first of them is being served.
    await auntil(lambda: crowd.of(herd[0], "realtime:room", "postgres_changes"))
    crowd.say(other, "phoenix", "heartbeat", {})
    await auntil(lambda: len(crowd.places(message="caught up")) == MANY)
    assert crowd.of(other, "phoenix", "phx_reply")[0] < max(crowd.places(message="caught up"))
    for number in herd:
        assert len(crowd.of(number, "realtime:room", "postgres_changes")) == 20
