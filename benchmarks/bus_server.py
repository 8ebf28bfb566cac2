"""What the bus costs a server process: dispatchers with subscriptions and without sockets.

Run as a program, for `benchmarks.bus`: DISPATCHERS SUBSCRIPTIONS MATCHES, of which the last is how
many subscriptions get the rows that match. Each dispatcher has its own end of the bus and its own
head monitor, as a server process has. It says as JSON what a subscription takes, and then for each
line that it reads what it has done so far.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import django

from benchmarks.feed import FakeChannel, joined
from benchmarks.live_changes import resident_mb

TABLE = "zoo_note"
# The value that the subscriptions with a match filter on; the others filter on 1, 2, ...
MATCHED, UNMATCHED = -1, -2
RING_SIZE = 10_000


class BusServer:
    """The dispatcher of one server process and its end of the bus."""

    def __init__(self) -> None:
        from realtime import conf
        from realtime.bus.bus import Bus
        from realtime.dispatcher.dispatcher import Dispatcher

        settings = conf.current()
        self.dispatcher = Dispatcher(settings.DATABASE, RING_SIZE)
        counters = self.dispatcher.counters
        self._bus = Bus(settings.CHANNEL_LAYER, self.dispatcher.receive, counters)
        self._channels: list[FakeChannel] = []

    async def start(self) -> None:
        """Join the bus."""
        await self._bus.join()
        await self.dispatcher.start(self._bus)

    async def subscribe(self, count: int, filter_of: Callable[[int], str]) -> None:
        """Subscribe so many channels more, each with the filter of its number."""
        from auth_rls import Subject

        subjects = [Subject.service()] * count
        self._channels += await joined(self.dispatcher, subjects, filter_of, TABLE)

    async def stop(self) -> None:
        await self.dispatcher.stop()
        await self._bus.leave()

    @property
    def done(self) -> dict[str, int]:
        """Counts since the start."""
        counters, log = self.dispatcher.counters, self.dispatcher.log
        return {
            "batches": counters.heard,
            "events": counters.events,
            "frames": sum(channel.frames for channel in self._channels),
            "frame_bytes": sum(channel.bytes for channel in self._channels),
            # Of the newest change.
            "row_bytes": sum(event.size for event in log.since(log.seq - 1) or ()),
            "healed": counters.healed_events,
        }


async def serve(dispatchers: int, subscriptions: int, matches: int) -> None:
    """Until standard input ends."""
    from realtime.util.database_threads import close_connections

    servers = [BusServer() for _ in range(dispatchers)]
    for server in servers:
        await server.start()
        await server.subscribe(matches, lambda number: f"score=eq.{MATCHED}")
    # The first ones make what all others share.
    others = subscriptions - matches
    gc.collect()
    before = resident_mb()
    for server in servers:
        await server.subscribe(others, lambda number: f"score=eq.{number}")
    gc.collect()
    grown = (resident_mb() - before) * 1024 / max(1, dispatchers * others)
    # As FanoutProtocol does in a server with many sockets.
    gc.freeze()
    say({"subscription_kb": grown})
    while await asyncio.to_thread(sys.stdin.readline):
        say({"cpu": time.process_time(), "servers": [server.done for server in servers]})
    for server in servers:
        await server.stop()
    await close_connections()


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    django.setup()
    asyncio.run(serve(*map(int, sys.argv[1:])))
