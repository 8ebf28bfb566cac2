"""What the filters of clients cost on an event, and who pays.

The cost of a filter with patterns depends on the row, so it is metered. It is charged to the
connections and the subjects that have the filter, each of which is bounded for an event.

Pure. Judges no row itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias, TypeVar

from auth_rls.few import items
from auth_rls.predicates.evaluate import Meter, TooCostly
from realtime.subscriptions.judgement import (
    STEPS_PER_CONNECTION,
    STEPS_PER_EVENT,
    STEPS_PER_SUBJECT,
)

if TYPE_CHECKING:
    from realtime.subscriptions.entries import Entry

Recipient = TypeVar("Recipient")

_MOST_PAYERS = 16

# The subjects that share a cost, and the connections.
Charged: TypeAlias = tuple[frozenset[object], ...]
NOBODY: Charged = ()


class Payers(NamedTuple):
    """Who pays the costs of a channel's filters: its connection, and the subject of that, which may
    be the connection itself."""

    connection: object
    subject: object


class EventCosts:
    """The costs of filters on one event. The first steps are not charged, since they are cheap
    together; `spent` is what each connection and subject has cost since."""

    __slots__ = ("free", "spent")

    def __init__(self) -> None:
        self.free = STEPS_PER_EVENT
        self.spent: dict[object, int] = {}


class FilterCosts(Generic[Recipient]):
    """The payers of the channels with metered entries. `payers_of` returns those of a channel; with
    None nobody pays."""

    def __init__(self, payers_of: Callable[[Recipient], Payers] | None) -> None:
        self._payers_of = payers_of
        self._payers: dict[Recipient, Payers] = {}

    def assign(self, recipient: Recipient, entries: Collection[Entry[Recipient]]) -> None:
        """From now on the present connection and subject of a channel pay for these entries of
        it."""
        if self._payers_of is None or not entries:
            return
        payers = self._payers_of(recipient)
        if self._payers.get(recipient) == payers:
            return
        self.release(recipient, entries)
        self._payers[recipient] = payers
        for entry in entries:
            entry.subjects[payers.subject] += 1

    def release(self, recipient: Recipient, entries: Collection[Entry[Recipient]]) -> None:
        """Nobody pays for these entries of a channel any more, which are all that it has."""
        payers = self._payers.pop(recipient, None)
        if payers is None:
            return
        for entry in entries:
            entry.subjects[payers.subject] -= 1
            if not entry.subjects[payers.subject]:
                del entry.subjects[payers.subject]

    def begin(self, entry: Entry[Recipient], meter: Meter, costs: EventCosts) -> Charged:
        """Set the meter of an entry that is to be judged on an event. Returns who is charged, for
        `settle`. Raises TooCostly if these have spent too much on the event; nothing is judged
        then."""
        meter.left = STEPS_PER_EVENT
        subjects = entry.subjects
        # A filter that many have is judged once for all of them and not charged.
        if costs.free > 0 or not 0 < len(subjects) <= _MOST_PAYERS:
            return NOBODY
        connections, spent = self._connections(entry), costs.spent
        if all(spent.get(one, 0) >= STEPS_PER_SUBJECT for one in subjects) or (
            connections and all(spent.get(one, 0) >= STEPS_PER_CONNECTION for one in connections)
        ):
            raise TooCostly
        return frozenset(subjects), connections.difference(subjects)

    def settle(self, meter: Meter, charged: Charged, costs: EventCosts) -> int:
        """Charge what the meter has counted since `begin`. Returns that, in steps."""
        steps = STEPS_PER_EVENT - meter.left
        costs.free -= steps
        for payers in charged:
            for payer in payers:
                costs.spent[payer] = costs.spent.get(payer, 0) + steps // len(payers)
        return steps

    def _connections(self, entry: Entry[Recipient]) -> frozenset[object]:
        """The connections that have this filter; none where they are many, whose subjects pay."""
        if entry.subjects.total() > _MOST_PAYERS:
            return frozenset()
        return frozenset(
            self._payers[recipient].connection
            for audience, _ in items(entry.subscribers)
            for recipient in audience.recipients
        )
