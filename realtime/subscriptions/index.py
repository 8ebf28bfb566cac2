"""The index of subscriptions: grouped into audiences, and found by equality.

Pure. Subscriptions on a table with equal policies and equal filters are one entry, which is
evaluated once per event for all channels that share it. Policies are found by hash on the values
that their equality conditions need, and so are filters, under policies that show the row
(`entries`). So the cost of an event grows with its matches and not with the number of
subscriptions. A policy that selects from another table reads a live set; when the set shifts, the
index follows, and neither entry nor audience is made anew. Channels with equal joins and equal
rights form one audience and share each frame.

The client of a live subscription keeps a set of rows, so an UPDATE is judged by both of its images:
a row that comes into the set is an INSERT to the client, one that leaves is a DELETE.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, TypeVar

from auth_rls.few import added, items, removed
from auth_rls.predicates.evaluate import TooCostly
from auth_rls.predicates.predicate import Predicate, Select
from auth_rls.sets.live_set import SetDelta
from realtime.delivery.recipients import Recipients
from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.protocol.change_frame import ChangeFrame
from realtime.subscriptions.change_payload import renamed, unchanged
from realtime.subscriptions.entries import NOTHING, Entries, Entry, RuleGroup, Sight
from realtime.subscriptions.filter_costs import NOBODY, EventCosts, FilterCosts, Payers
from realtime.subscriptions.judgement import MembersOf

Recipient = TypeVar("Recipient")

# Steps of work after which other tasks may run, and the steps of an entry beside its filter.
_STRIDE = 256_000
_STEPS_PER_ENTRY = 1_000


@dataclass(frozen=True, slots=True)
class Subscription:
    """One binding on one table. `event` is "*", "INSERT", "UPDATE" or "DELETE".

    `id` is the client's id of the binding; a binding on a whole schema is several subscriptions
    with one id. `rls` and `filter` are bound predicates. With `live` the client keeps a set of
    rows.
    """

    id: int
    schema: str
    table: str
    event: str
    filter: Predicate
    rls: Predicate
    select: tuple[str, ...] | None = None
    live: bool = False

    @property
    def live_key(self) -> tuple[int, str]:
        """The key of the subscription within its channel: binding id and table."""
        return self.id, self.table


@dataclass(frozen=True, slots=True)
class AudienceKey:
    """Channels with equal keys are one audience."""

    topic: str
    version: str
    subscriptions: tuple[Subscription, ...]
    frame: ChangeFrame = ChangeFrame.BINDINGS


_sink_of = attrgetter("outlet")


@dataclass(eq=False, slots=True)
class Audience(Generic[Recipient]):
    """Channels that get the same frames."""

    key: AudienceKey
    recipients: Recipients[Recipient] = field(default_factory=lambda: Recipients(_sink_of))
    #: The entries whose costs are charged.
    metered: tuple[Entry[Recipient], ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery(Generic[Recipient]):
    """A frame that is to be made for an audience: binding ids, columns, with or without the old
    image.

    `op` is the change as this audience gets it: an UPDATE may be an INSERT or a DELETE to it.
    """

    audience: Audience[Recipient]
    ids: tuple[int, ...]
    select: tuple[str, ...] | None
    show_old: bool
    op: str


class _Table(Generic[Recipient]):
    """The entries of one table. Live entries are kept apart, because the old row finds them too."""

    __slots__ = ("live", "plain")

    def __init__(self, members_of: MembersOf) -> None:
        self.plain: Entries[Recipient] = Entries(members_of)
        self.live: Entries[Recipient] = Entries(members_of)

    def entries(self, subscription: Subscription) -> Entries[Recipient]:
        return self.live if subscription.live else self.plain

    def __len__(self) -> int:
        return len(self.plain) + len(self.live)


def _no_sets(select: Select) -> Collection[object]:
    raise ValueError(f"the set of {select.model}.{select.column} is not known here")


class SubscriptionIndex(Generic[Recipient]):
    """All subscriptions of a process. `members_of` returns the live set behind a select.

    `on_failure` is called for a predicate that raised; the event is then not delivered to its
    subscribers. `on_too_costly` is called for each channel whose filter costs too much on an event;
    it must end that subscription after the event, which the channel does not get. `payers_of`
    returns who pays the costs of a channel's filters.
    """

    def __init__(
        self,
        on_failure: Callable[[Subscription, Exception], None],
        members_of: MembersOf = _no_sets,
        on_too_costly: Callable[[Recipient, Subscription], None] | None = None,
        payers_of: Callable[[Recipient], Payers] | None = None,
    ) -> None:
        self._members_of = members_of
        self._tables: dict[tuple[str, str], _Table[Recipient]] = {}
        self._audiences: dict[AudienceKey, Audience[Recipient]] = {}
        self._of: dict[Recipient, Audience[Recipient]] = {}
        self._on_failure = on_failure
        self._on_too_costly = on_too_costly
        self._costs = FilterCosts(payers_of)
        #: How many evaluations of a predicate on an event there were.
        self.evaluated = 0

    def __len__(self) -> int:
        """How many channels have a subscription."""
        return len(self._of)

    def __contains__(self, recipient: Recipient) -> bool:
        return recipient in self._of

    @property
    def entries(self) -> int:
        """How many distinct predicates there are over all tables."""
        return sum(map(len, self._tables.values()))

    def set(self, recipient: Recipient, key: AudienceKey) -> bool:
        """Subscribe a channel, in place of what it had. Returns whether that changed anything."""
        current = self._of.get(recipient)
        if current is not None and current.key == key:
            self._costs.assign(recipient, current.metered)
            return False
        self.remove(recipient)
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = self._audience(key)
        audience.recipients.add(recipient)
        self._of[recipient] = audience
        self._costs.assign(recipient, audience.metered)
        return True

    def _audience(self, key: AudienceKey) -> Audience[Recipient]:
        audience: Audience[Recipient] = Audience(key)
        metered: list[Entry[Recipient]] = []
        for subscription in dict.fromkeys(key.subscriptions):
            table_key = (subscription.schema, subscription.table)
            table = self._tables.get(table_key)
            if table is None:
                table = self._tables[table_key] = _Table(self._members_of)
            entry = table.entries(subscription).entry(subscription)
            entry.subscribers = added(entry.subscribers, (audience, subscription))
            if entry.judgement.meter is not None:
                metered.append(entry)
        audience.metered = tuple(metered)
        return audience

    def remove(self, recipient: Recipient) -> None:
        """Remove a channel, if it is there. Nothing matches it from here on (RT-S1)."""
        audience = self._of.pop(recipient, None)
        if audience is None:
            return
        self._costs.release(recipient, audience.metered)
        audience.recipients.discard(recipient)
        if audience.recipients:
            return
        del self._audiences[audience.key]
        for subscription in dict.fromkeys(audience.key.subscriptions):
            table_key = (subscription.schema, subscription.table)
            table = self._tables[table_key]
            entries = table.entries(subscription)
            entry = entries.entry(subscription)
            entry.subscribers = removed(entry.subscribers, (audience, subscription))
            if entry.subscribers is None:
                entries.discard(entry)
            if not table.plain.groups and not table.live.groups:
                del self._tables[table_key]
        # Audience and entry refer to each other.
        audience.metered = ()

    def on_table(self, schema: str, table: str) -> Collection[Recipient]:
        """The channels subscribed to this table, with or without a match."""
        found = self._tables.get((schema, table))
        if found is None:
            return ()
        return {
            recipient
            for entries in (found.plain, found.live)
            for entry in entries
            for audience, _ in items(entry.subscribers)
            for recipient in audience.recipients
        }

    def follow(self, select: Select, shift: SetDelta) -> None:
        """A set has shifted. Call it before the next event is matched."""
        for table in self._tables.values():
            for entries in (table.plain, table.live):
                entries.follow(select, shift.added, shift.removed)

    def file_again(self) -> None:
        """Match events by the present values of the sets, whatever `follow` was told: after a shift
        that was broken off."""
        for table in self._tables.values():
            for entries in (table.plain, table.live):
                entries.file_again()

    def match(self, event: DatabaseEvent) -> list[Delivery[Recipient]]:
        """The deliveries of this event. A predicate that is unknown does not match."""
        found: list[Delivery[Recipient]] = []
        for _ in self.matching(event, found):
            pass
        return found

    def matching(
        self, event: DatabaseEvent, found: list[Delivery[Recipient]]
    ) -> Generator[None, None, None]:
        """`match` in steps, which appends to `found` at the last one. Between two steps channels
        may be removed, but `set` must not be called."""
        relation = event.relation
        table = self._tables.get((relation.schema, relation.table))
        if table is None or not relation.published:
            return
        hits: list[_Hit[Recipient]] = []
        costs = EventCosts()
        image = event.old if event.op == "DELETE" else event.new
        if table.plain.groups and image is not None and not unchanged(event):
            groups = table.plain.candidates(image)
            yield from self._each(groups, event, image, False, hits, costs)
        if table.live.groups:
            groups = table.live.candidates(event.new, event.old)
            yield from self._each(groups, event, image, True, hits, costs)
        if hits:
            found += _group(hits)

    def _each(
        self,
        groups: Iterable[RuleGroup[Recipient]],
        event: DatabaseEvent,
        image: RowImage | None,
        live: bool,
        hits: list[_Hit[Recipient]],
        costs: EventCosts,
    ) -> Generator[None, None, None]:
        judge = _live_hits if live else _hits
        work = evaluated = 0
        try:
            for group in groups:
                evaluated += 1
                work += _STEPS_PER_ENTRY
                entries: Iterable[Entry[Recipient]] = ()
                try:
                    sight = group.sight(event) if live else group.sight_found(event)
                    if sight is not NOTHING:
                        # The entries whose filters may let through a row that the policies show.
                        entries = (
                            group.live_candidates(event, sight) if live else group.candidates(image)
                        )
                except Exception as error:
                    self._group_failed(group, error)
                for entry in entries:
                    evaluated += 1
                    judgement = entry.judgement
                    meter = judgement.meter
                    charged = NOBODY
                    work += _STEPS_PER_ENTRY + judgement.weight
                    try:
                        if meter is not None:
                            charged = self._costs.begin(entry, meter, costs)
                        hits += judge(entry, event, sight)
                    except TooCostly:
                        self._too_costly(entry)
                    except Exception as error:
                        self._failed(entry, error)
                    if meter is not None:
                        work += self._costs.settle(meter, charged, costs)
                    if work >= _STRIDE:
                        work = 0
                        yield
                if work >= _STRIDE:
                    work = 0
                    yield
        finally:
            self.evaluated += evaluated

    def _group_failed(self, group: RuleGroup[Recipient], error: Exception) -> None:
        for entry in group:
            self._failed(entry, error)
            break

    def _failed(self, entry: Entry[Recipient], error: Exception) -> None:
        """Report a predicate that raised. Only its own subscribers miss the event (RT-S2)."""
        for _, subscription in items(entry.subscribers):
            self._on_failure(subscription, error)
            break

    def _too_costly(self, entry: Entry[Recipient]) -> None:
        if self._on_too_costly is None:
            self._failed(entry, TooCostly("the filter costs too much"))
            return
        for audience, subscription in items(entry.subscribers):
            for recipient in audience.recipients:
                self._on_too_costly(recipient, subscription)


# Audience, subscription, whether the frame shows the old image, and the op.
_Hit = tuple[Audience[Recipient], Subscription, bool, str]
_Judge = Callable[[Entry[Recipient], DatabaseEvent, Sight], Iterable[_Hit[Recipient]]]


def _hits(entry: Entry[Recipient], event: DatabaseEvent, sight: Sight) -> Iterable[_Hit[Recipient]]:
    image = event.old if event.op == "DELETE" else event.new
    if image is None or not entry.wants_found(image):
        return ()
    return [
        (audience, subscription, sight.old, event.op)
        for audience, subscription in items(entry.subscribers)
        if subscription.event in ("*", event.op)
    ]


def _live_hits(
    entry: Entry[Recipient], event: DatabaseEvent, sight: Sight
) -> list[_Hit[Recipient]]:
    before = sight.old and event.old is not None and entry.wants(event.old)
    after = sight.new and event.new is not None and entry.wants(event.new)
    ops: list[str] = []
    if before and after and not renamed(event):
        # The row stays in the set; a change of hidden columns is no change to the client.
        if not unchanged(event):
            ops = [event.op]
    else:
        ops += ["DELETE"] if before else []
        ops += ["INSERT"] if after else []
    return [
        (audience, subscription, before, op)
        for op in ops
        for audience, subscription in items(entry.subscribers)
    ]


def _group(hits: Iterable[_Hit[Recipient]]) -> list[Delivery[Recipient]]:
    # One frame per channel, op and distinct select, with the ids of every binding that matched.
    # A row that takes another key leaves under the old one before it comes under the new one.
    frames: dict[tuple[Audience[Recipient], tuple[str, ...] | None, bool, str], set[int]] = {}
    for audience, subscription, show_old, op in hits:
        frames.setdefault((audience, subscription.select, show_old, op), set()).add(subscription.id)
    return [
        Delivery(audience, tuple(sorted(ids)), select, show_old, op)
        for (audience, select, show_old, op), ids in sorted(
            frames.items(), key=lambda frame: frame[0][3] != "DELETE"
        )
    ]
