"""Where a subscriber of this process gets its changes from: the hub of the server that runs on the
event loop, or else a follower of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from realtime.change_stream.follower import Follower, follow_here, let_go
from realtime.dispatcher.dispatcher import Dispatcher
from realtime.process.connection_monitor import ConnectionMonitor
from realtime.process.hub import Hub, hub_here
from realtime.subscriptions.subscriber import Subscriber


class Feeding(Protocol):
    """What a hub and a follower have in common."""

    @property
    def dispatcher(self) -> Dispatcher: ...
    @property
    def connection_monitor(self) -> ConnectionMonitor: ...
    @property
    def on_drain(self) -> dict[object, Callable[[], None]]: ...
    @property
    def draining(self) -> bool: ...
    def new_id(self) -> str: ...
    def remove(self, subscriber: Subscriber) -> None: ...


class ServerStops(Exception):
    """The server process of this event loop is stopping."""


@dataclass(frozen=True, slots=True)
class Source:
    """One per subscriber, on its event loop. `hub` or `follower` is what feeds it."""

    hub: Hub | None = None
    follower: Follower | None = None

    @property
    def feeding(self) -> Feeding:
        found = self.hub or self.follower
        assert found is not None  # one of the two is given
        return found

    def leave(self) -> asyncio.Task[None] | None:
        """It is used no longer. Returns the task that ends what runs for it alone, if any."""
        return None if self.follower is None else let_go(self.follower)


async def source_here() -> Source:
    """The source on the running event loop; `leave` it afterwards.

    Raises ServerStops, and what the database raises.
    """
    hub = hub_here()
    if hub is None:
        return Source(follower=await follow_here())
    if hub.draining:
        raise ServerStops
    await hub.ready()
    return Source(hub=hub)
