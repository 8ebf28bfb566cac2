"""One change of a row, delivered to the channels that are subscribed to it and may see it.

Each frame is encoded once for all who get the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from realtime.event_log.event import DatabaseEvent
from realtime.event_log.ring import EventLog
from realtime.subscriptions import frames
from realtime.subscriptions.channels import Channels
from realtime.subscriptions.index import Delivery
from realtime.subscriptions.subscriber import Subscriber
from realtime.util.counters import Counters
from realtime.util.time_slice import TimeSlice

logger = logging.getLogger("realtime.dispatcher")


class ChangeDelivery:
    """On the event loop of its dispatcher, while `channels` are frozen. `log` has the position to
    which a change belongs."""

    def __init__(
        self, channels: Channels, log: EventLog, counters: Counters, time_slice: TimeSlice
    ) -> None:
        self._channels = channels
        self._log = log
        self._counters = counters
        self._time_slice = time_slice

    async def deliver(self, event: DatabaseEvent) -> None:
        """Send a change to everybody whom it concerns."""
        deliveries: list[Delivery[Subscriber]] = []
        for _ in self._channels.matching(event, deliveries):
            await self._time_slice.pause()
        if not deliveries:
            return
        self._counters.matched += 1
        made = frames.ChangeFrames(event)
        writers = () if event.tx is None else self._channels.writers_of(event)
        for delivery in deliveries:
            members = delivery.audience.recipients
            own = [one for one in writers if one in members] if writers else ()
            self._send(made, delivery, own, event.tx)
        self._counters.encoded += made.encoded

    def lost(self, event: DatabaseEvent) -> None:
        """Tell the channels on the table of a change that cannot be delivered to read their rows
        again."""
        relation = event.relation
        for subscriber in self._channels.index.on_table(relation.schema, relation.table):
            subscriber.resync(self._log.position)

    def _send(
        self,
        made: frames.ChangeFrames,
        delivery: Delivery[Subscriber],
        own: Collection[Subscriber],
        tx: str | None,
    ) -> None:
        """Send a change to an audience. Those in `own`, who wrote it, get a frame with its receipt
        `tx`."""
        members = delivery.audience.recipients
        others = len(members) - len(own)
        try:
            own_frame = made.of(delivery, tx) if own else None
            frame = made.of(delivery) if others else None
        except Exception:
            # Only this audience is concerned; it has to read its rows again.
            logger.exception("a change cannot be encoded", extra={"action": "encoding_failed"})
            for subscriber in tuple(members):
                subscriber.resync(self._log.position)
            return
        self._counters.delivered += len(members)
        if frame is not None:
            self._counters.sent(others, len(frame))
        if own_frame is None:
            if frame is not None:
                members.send(frame)
            return
        self._counters.sent(len(own), len(own_frame))
        if frame is None:
            members.send(own_frame)
        else:
            members.send_apart(frame, own, own_frame)
