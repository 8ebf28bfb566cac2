"""A topic of which channels of this process show presence: who they are, and when they are sent
what has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import attrgetter

from realtime.delivery.frame import SharedFrame
from realtime.delivery.recipients import Recipients
from realtime.event_log.position import Position
from realtime.protocol.serializer import Version
from realtime.topics.frames import of_presence
from realtime.topics.listeners import Listener

Callback = Callable[[], None]
_sink_of = attrgetter("outlet")

# A diff costs one frame for each listener. From this many listeners on, the changes of up to a
# second go into one diff: a thousand people who come at once then cost a few thousand frames
# instead of a million.
_MANY_LISTENERS = 50
_LONGEST_WAIT = 1.0


class LoadedTopic:
    """`ready` is done when the topic has been read; None when it has been, and need not be read
    again. On one event loop."""

    def __init__(self, name: str, ready: asyncio.Future[None]) -> None:
        self._topic = f"realtime:{name}"
        self.ready: asyncio.Future[None] | None = ready
        # Listeners of one protocol version receive the same frames.
        self._listeners: dict[Version, Recipients[Listener]] = {}
        #: How many `with tracker.loaded(...)` blocks are running.
        self.blocks = 0
        #: Where the log was when the table was read; rights are to be as of there before changes
        #: that were found in it are sent.
        self.after: Position | None = None
        #: Called behind the next diff.
        self.callbacks: list[Callback] = []
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_listeners(self) -> bool:
        """Whether there is anybody to send to."""
        return bool(self._listeners)

    def join(self, listener: Listener) -> None:
        """Send diffs to this channel from here on."""
        if listener.version not in self._listeners:
            self._listeners[listener.version] = Recipients(_sink_of)
        self._listeners[listener.version].add(listener)

    def leave(self, listener: Listener) -> None:
        """Send no more to this channel, which has joined."""
        group = self._listeners[listener.version]
        group.discard(listener)
        if not group:
            del self._listeners[listener.version]

    def send_soon(self, send: Callable[[], None], seconds_per_listener: float) -> None:
        """Call `send` at once, or a little later where many listen, so that further changes go
        with these; does nothing if it is to be called already."""
        if self._timer is not None:
            return
        count = sum(map(len, self._listeners.values()))
        wait = 0.0
        if count >= _MANY_LISTENERS:
            wait = min(count * seconds_per_listener, _LONGEST_WAIT)
        loop = asyncio.get_running_loop()
        due = self._sent_at + wait
        if loop.time() >= due:
            send()
        else:
            self._timer = loop.call_at(due, send)

    def stop_waiting(self) -> None:
        """Do not call what `send_soon` was given."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send(self, diff: bytes | None) -> None:
        """Send a diff, if there is one, then call the callbacks."""
        # What it was set for is sent here, perhaps after a read that took its place.
        self.stop_waiting()
        self._sent_at = asyncio.get_running_loop().time()
        if diff is not None:
            for version, listeners in self._listeners.items():
                listeners.send(SharedFrame(of_presence(version, self._topic, diff)))
        self.call_back()

    def call_back(self) -> None:
        """Call the callbacks, each once."""
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()
