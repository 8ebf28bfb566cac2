"""What one subject would be sent of changes that were captured and may never be committed.

A stream for one subscriber, run at once: with the planner, index and live sets of a server, in the
same order. Before each change the policies, permissions and memberships are those of that position
in the log: later changes are undone by their images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from auth_rls.access.past import PastUnknown
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.sets.live_set import LiveSets
from auth_rls.subjects.resolve import subject_of
from auth_rls.subjects.subject import Subject
from realtime.event_log.event import DatabaseEvent
from realtime.protocol.join import Binding
from realtime.protocol.serializer import Version
from realtime.subscriptions.access_watch import AccessWatch, past_of
from realtime.subscriptions.failures import log_failure
from realtime.subscriptions.identity_tables import table_of
from realtime.subscriptions.index import AudienceKey, Delivery, SubscriptionIndex
from realtime.subscriptions.planner import Planner
from realtime.subscriptions.set_reader import change_of, read_before
from realtime.wal import obstacles, published

logger = logging.getLogger("realtime.testing")


@dataclass(frozen=True, slots=True)
class Sent:
    """A change as one subject gets it: these columns, with or without the old row, as which op."""

    event: DatabaseEvent
    select: tuple[str, ...] | None
    show_old: bool
    op: str


def sent_to(
    asker: Any, events: Sequence[DatabaseEvent], later: Sequence[DatabaseEvent], alias: str
) -> Iterator[Sent]:
    """Which of these changes, in order, the Django user or `Subject` is sent. `later` came after
    them. The transaction of `alias` sees all of them."""
    obstacles.refresh(alias)
    subject = subject_of(asker)
    if subject is None:
        return
    watch = AccessWatch(alias)
    stream = _Stream(subject, alias, [*events, *later])
    for place, event in enumerate(events, 1):
        if stream.ended:
            return
        if watch.binds(event) or stream.sets.reads(event.relation.table):
            stream.bind(place)
        yield from stream.sent(event)


class _Stream:
    """What the subject is bound to at one place among the changes: behind so many of them."""

    def __init__(self, subject: Subject, alias: str, events: Sequence[DatabaseEvent]) -> None:
        self._subject = subject
        self._alias = alias
        self._events = events
        self._listener = object()
        self.ended = False
        self.bind(0)

    def bind(self, place: int) -> None:
        """Bind to what was true behind the first `place` changes."""
        undone = self._events[place:]
        self.sets = LiveSets(table_of)
        self._index: SubscriptionIndex[Any] = SubscriptionIndex(log_failure, self.sets.members)
        try:
            planner = Planner(PolicySnapshot.load_past(past_of(undone)))
        except PastUnknown as error:
            logger.warning(
                "permissions cannot be known, and deny: %s",
                error,
                extra={"action": "past_unknown"},
            )
            planner = Planner(PolicySnapshot(()))
        subject = planner.renew([self._subject])[self._subject]
        if subject is None:
            # The server ends the connections of a user who may ask no longer.
            self.ended = True
            return
        plan = planner.plan(
            subject,
            [
                Binding(id=number, schema=entry.schema, table=entry.table)
                for number, entry in enumerate(published.published())
            ],
        )
        found = read_before(self._alias, plan.selects, [change_of(event) for event in undone])
        for select, one in found.items():
            self.sets.add(select, one.counts, one.exact)
        key = AudienceKey("realtime:test", Version.V2.value, plan.subscriptions)
        self._index.set(self._listener, key)

    def sent(self, event: DatabaseEvent) -> Iterator[Sent]:
        """The change as the subject gets it, if it does."""
        if self.ended:
            return
        relation = event.relation
        if event.old is None and event.new is None:
            if relation.published and self._index.on_table(relation.schema, relation.table):
                yield Sent(event, None, False, event.op)
            return
        deliveries: list[Delivery[Any]] = self._index.match(event)
        for delivery in deliveries:
            yield Sent(event, delivery.select, delivery.show_old, delivery.op)
