"""Broadcasts of all processes, delivered to the channels here that listen.

Owns those that wait. A flood on one topic does not delay the others, and what waits has a bound.
"""

from __future__ import annotations

import time

from realtime.delivery.frame import SharedFrame
from realtime.subscriptions.subscriber import Subscriber
from realtime.topics.broadcast import Broadcast, BroadcastBatch, PassingBatch, RecentMarks
from realtime.topics.frames import of_broadcast
from realtime.topics.listeners import TopicListeners
from realtime.util.counters import Counters
from realtime.util.fair_queue import FairQueue


class BroadcastDelivery:
    """On the event loop of its dispatcher. Of more than `most` broadcasts, or `most_of_topic` of
    one topic, later ones are lost."""

    def __init__(
        self,
        topics: TopicListeners[Subscriber],
        counters: Counters,
        slice_seconds: float,
        *,
        most: int,
        most_of_topic: int,
    ) -> None:
        self._topics = topics
        self._counters = counters
        self._slice_seconds = slice_seconds
        self._waiting: FairQueue[Broadcast] = FairQueue(most, most_of_topic)
        self._marks = RecentMarks()

    def __bool__(self) -> bool:
        """Whether broadcasts wait."""
        return bool(self._waiting)

    def receive(self, batch: BroadcastBatch | PassingBatch) -> None:
        """Take broadcasts from the bus, those of topics that have listeners here."""
        if isinstance(batch, PassingBatch):
            batch = self._marks.fresh(batch, time.monotonic())
        for broadcast in batch.broadcasts:
            if not self._topics.has_listeners(broadcast.topic, broadcast.private):
                continue
            if not self._waiting.put(broadcast.topic_key, broadcast):
                self._counters.casts_refused += 1

    def deliver_some(self) -> None:
        """Deliver what waits, for the time of a slice."""
        started = time.perf_counter()
        while self._waiting and time.perf_counter() - started < self._slice_seconds:
            self.deliver(self._waiting.pop())

    def deliver(self, broadcast: Broadcast) -> None:
        """Send a broadcast to the channels that listen, but for the one that sent it."""
        self._counters.broadcasts_received += 1
        origin = self._topics.listener(broadcast.origin)
        for version, group in self._topics.groups(broadcast.topic, broadcast.private):
            encoded = of_broadcast(broadcast, version)
            if encoded is None:
                continue
            frame = SharedFrame(encoded)
            self._counters.sent(len(group) - (origin in group), len(frame))
            if not broadcast.id:
                group.send(frame, without=origin)
                continue
            for subscriber in group:
                if subscriber is not origin:
                    subscriber.hear(frame, broadcast.id)
