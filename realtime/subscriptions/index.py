"""The index of subscriptions: grouped into audiences, and found by equality.

Pure. A filter and a subject's policies together are one predicate; equal predicates on a table
are one entry, evaluated once per event for all channels that share it. Entries are found by hash
on the values that their equality conditions need, so an event costs what it matches, not what is
subscribed. A predicate that selects from another table looks into a live set; when that shifts,
the index follows, and neither entry nor audience is made anew.
Channels whose joins are the same in every respect form one audience and share each frame.

A live subscription keeps a set of rows, so an UPDATE is judged by both of its images: a row that
comes into the set is an INSERT to it, one that leaves is a DELETE.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, TypeVar

from auth_rls.predicates.evaluate import Meter, TooCostly
from auth_rls.predicates.index import Index, index_keys, keys_decide
from auth_rls.predicates.predicate import All, Predicate, Select
from auth_rls.predicates.simplify import simplify
from auth_rls.sets.live_set import SetDelta
from realtime.delivery.recipients import Recipients
from realtime.event_log.event import DatabaseEvent
from realtime.protocol.change_frame import ChangeFrame
from realtime.subscriptions.change_payload import renamed, unchanged
from realtime.subscriptions.judgement import (
    STEPS_PER_CONNECTION,
    STEPS_PER_EVENT,
    Judgement,
    MembersOf,
)

Member = TypeVar("Member")

# Steps of work between two moments at which others may use the loop, and what an entry costs
# beside its filter.
_STRIDE = 256_000
_STEPS_PER_ENTRY = 1_000
_MOST_PAYERS = 16


@dataclass(frozen=True, slots=True)
class Subscription:
    """One binding on one table. `event` is "*", "INSERT", "UPDATE" or "DELETE".

    The client knows the binding by `id`; a wildcard binding is several subscriptions with one id.
    `rls` and `filter` are bound predicates. With `live` the client keeps a set of rows.
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
    def place(self) -> tuple[int, str]:
        """Names the subscription within its channel: binding and table."""
        return self.id, self.table


@dataclass(frozen=True, slots=True)
class AudienceKey:
    """Channels with equal keys are one audience."""

    topic: str
    version: str
    subscriptions: tuple[Subscription, ...]
    frame: ChangeFrame = ChangeFrame.BINDINGS


@dataclass(eq=False, slots=True)
class Audience(Generic[Member]):
    """Channels that get the same frames."""

    key: AudienceKey
    members: Recipients[Member] = field(default_factory=lambda: Recipients(attrgetter("outlet")))


@dataclass(frozen=True, slots=True)
class Delivery(Generic[Member]):
    """One frame to be made: these binding ids, these columns, with or without the old image.

    `op` is what the change is to this audience: an UPDATE may be an INSERT or a DELETE to it.
    """

    audience: Audience[Member]
    ids: tuple[int, ...]
    select: tuple[str, ...] | None
    show_old: bool
    op: str


class _Entry(Generic[Member]):
    """Every subscription on a table with one predicate, all live or none."""

    __slots__ = ("decided", "judgement", "key", "keys", "subscribers")

    def __init__(self, key: tuple[Predicate, Predicate], members_of: MembersOf) -> None:
        filter_, rls = key
        both = simplify(All((rls, filter_)))
        self.key = key
        self.judgement = Judgement(rls, filter_, members_of)
        self.keys = index_keys(both)
        # An entry found by a value of the one row that counts needs no evaluation.
        self.decided = keys_decide(both)
        # A dict as an ordered set: frames leave in the order of joining.
        self.subscribers: dict[tuple[Audience[Member], Subscription], None] = {}


class _Entries(Generic[Member]):
    """Entries by predicate and by the values they need."""

    __slots__ = ("_members_of", "by_key", "index")

    def __init__(self, members_of: MembersOf) -> None:
        self._members_of = members_of
        self.by_key: dict[tuple[Predicate, Predicate], _Entry[Member]] = {}
        self.index: Index[_Entry[Member]] = Index(members_of)

    def entry(self, subscription: Subscription) -> _Entry[Member]:
        key = (subscription.filter, subscription.rls)
        found = self.by_key.get(key)
        if found is None:
            found = self.by_key[key] = _Entry(key, self._members_of)
            self.index.add(found, found.keys)
        return found

    def discard(self, entry: _Entry[Member]) -> None:
        del self.by_key[entry.key]
        self.index.discard(entry, entry.keys)


class _Table(Generic[Member]):
    """The entries of one table. Live ones are apart: they are found by the old row too."""

    __slots__ = ("live", "plain")

    def __init__(self, members_of: MembersOf) -> None:
        self.plain: _Entries[Member] = _Entries(members_of)
        self.live: _Entries[Member] = _Entries(members_of)

    def entries(self, subscription: Subscription) -> _Entries[Member]:
        return self.live if subscription.live else self.plain

    def __len__(self) -> int:
        return len(self.plain.by_key) + len(self.live.by_key)


class _Costs:
    """What filters have cost on one event. The first steps are charged to nobody, since they are
    cheap together; `spent` is what each connection has cost since."""

    __slots__ = ("free", "spent")

    def __init__(self) -> None:
        self.free = STEPS_PER_EVENT
        self.spent: dict[object, int] = {}


def _no_sets(select: Select) -> Collection[object]:
    raise ValueError(f"the set of {select.model}.{select.column} is not known here")


class SubscriptionIndex(Generic[Member]):
    """All subscriptions of a process. `Member` is what the shell delivers to; `members_of` gives
    the live set behind a select.

    `on_failure` is called for a predicate that raised; the event is then not delivered to its
    subscribers. `on_too_costly` is called for each channel whose filter costs too much on an event;
    it must end that subscription once the event is handed out, for the event is lost to it.
    `payer_of` names the connection that the costs of a channel's filters are charged to.
    """

    def __init__(
        self,
        on_failure: Callable[[Subscription, Exception], None],
        members_of: MembersOf = _no_sets,
        on_too_costly: Callable[[Member, Subscription], None] | None = None,
        payer_of: Callable[[Member], object] | None = None,
    ) -> None:
        self._members_of = members_of
        self._tables: dict[tuple[str, str], _Table[Member]] = {}
        self._audiences: dict[AudienceKey, Audience[Member]] = {}
        self._of: dict[Member, Audience[Member]] = {}
        self._on_failure = on_failure
        self._on_too_costly = on_too_costly
        self._payer_of = payer_of
        #: How many predicates were evaluated on an event so far.
        self.evaluated = 0

    def __len__(self) -> int:
        """How many channels have a subscription."""
        return len(self._of)

    def __contains__(self, member: Member) -> bool:
        return member in self._of

    @property
    def entries(self) -> int:
        """How many distinct predicates there are over all tables."""
        return sum(map(len, self._tables.values()))

    def set(self, member: Member, key: AudienceKey) -> bool:
        """Subscribe a channel, in place of what it had. Returns whether that changed anything."""
        current = self._of.get(member)
        if current is not None and current.key == key:
            return False
        self.remove(member)
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(key)
            for subscription in dict.fromkeys(key.subscriptions):
                place = (subscription.schema, subscription.table)
                table = self._tables.get(place)
                if table is None:
                    table = self._tables[place] = _Table(self._members_of)
                entry = table.entries(subscription).entry(subscription)
                entry.subscribers[audience, subscription] = None
        audience.members.add(member)
        self._of[member] = audience
        return True

    def remove(self, member: Member) -> None:
        """Remove a channel, if it is there. Nothing matches it from here on (RT-S1)."""
        audience = self._of.pop(member, None)
        if audience is None:
            return
        audience.members.discard(member)
        if audience.members:
            return
        del self._audiences[audience.key]
        for subscription in dict.fromkeys(audience.key.subscriptions):
            place = (subscription.schema, subscription.table)
            table = self._tables[place]
            entries = table.entries(subscription)
            entry = entries.entry(subscription)
            entry.subscribers.pop((audience, subscription), None)
            if not entry.subscribers:
                entries.discard(entry)
            if not len(table):
                del self._tables[place]

    def on_table(self, schema: str, table: str) -> Collection[Member]:
        """The channels subscribed to this table, whatever they may see of it."""
        found = self._tables.get((schema, table))
        if found is None:
            return ()
        return {
            member
            for entries in (found.plain, found.live)
            for entry in entries.by_key.values()
            for audience, _ in entry.subscribers
            for member in audience.members
        }

    def follow(self, select: Select, shift: SetDelta) -> None:
        """A set has shifted. To be called before the next event is matched."""
        for table in self._tables.values():
            for entries in (table.plain, table.live):
                entries.index.follow(select, shift.added, shift.removed)

    def match(self, event: DatabaseEvent) -> list[Delivery[Member]]:
        """Every frame this event is worth. Unknown is not a match."""
        found: list[Delivery[Member]] = []
        for _ in self.matching(event, found):
            pass
        return found

    def matching(
        self, event: DatabaseEvent, found: list[Delivery[Member]]
    ) -> Generator[None, None, None]:
        """`match` in steps, appending to `found` at the last one. Between two steps channels may
        be removed, but none be set."""
        table = self._tables.get((event.relation.schema, event.relation.table))
        if table is None or not event.relation.published:
            return
        hits: list[_Hit[Member]] = []
        costs = _Costs()
        image = event.old if event.op == "DELETE" else event.new
        if table.plain.by_key and image is not None and not unchanged(event):
            yield from self._each(table.plain.index.candidates(image), event, _hits, hits, costs)
        if table.live.by_key:
            entries = table.live.index.candidates(event.new, event.old)
            yield from self._each(entries, event, _live_hits, hits, costs)
        if hits:
            found += _group(hits)

    def _each(
        self,
        entries: Iterable[_Entry[Member]],
        event: DatabaseEvent,
        judge: Callable[[_Entry[Member], DatabaseEvent], Iterable[_Hit[Member]]],
        hits: list[_Hit[Member]],
        costs: _Costs,
    ) -> Generator[None, None, None]:
        work = 0
        for entry in entries:
            self.evaluated += 1
            meter = entry.judgement.meter
            if meter is not None:
                meter.left = STEPS_PER_EVENT
            try:
                if meter is not None and costs.free <= 0:
                    hits += self._charged(entry, event, judge, meter, costs.spent)
                else:
                    hits += judge(entry, event)
            except TooCostly:
                self._too_costly(entry)
            except Exception as error:
                self._failed(entry, error)
            work += _STEPS_PER_ENTRY
            if meter is not None:
                steps = STEPS_PER_EVENT - meter.left
                work += steps
                costs.free -= steps
            if work >= _STRIDE:
                work = 0
                yield

    def _charged(
        self,
        entry: _Entry[Member],
        event: DatabaseEvent,
        judge: Callable[[_Entry[Member], DatabaseEvent], Iterable[_Hit[Member]]],
        meter: Meter,
        spent: dict[object, int],
    ) -> Iterable[_Hit[Member]]:
        """Judge, at the cost of the connections whose filter it is: `spent` is what they have cost
        on this event. A filter that many have is not charged; it is judged once for all of them."""
        audiences = {audience for audience, _ in entry.subscribers}
        if self._payer_of is None or sum(len(one.members) for one in audiences) > _MOST_PAYERS:
            return judge(entry, event)
        payers = {self._payer_of(member) for one in audiences for member in one.members}
        if all(spent.get(payer, 0) >= STEPS_PER_CONNECTION for payer in payers):
            raise TooCostly
        try:
            return judge(entry, event)
        finally:
            share = (STEPS_PER_EVENT - meter.left) // len(payers)
            for payer in payers:
                spent[payer] = spent.get(payer, 0) + share

    def _failed(self, entry: _Entry[Member], error: Exception) -> None:
        """Denied to all who share this predicate, and to no others (RT-S2)."""
        for _, subscription in entry.subscribers:
            self._on_failure(subscription, error)
            break

    def _too_costly(self, entry: _Entry[Member]) -> None:
        if self._on_too_costly is None:
            self._failed(entry, TooCostly("the filter costs too much"))
            return
        for audience, subscription in entry.subscribers:
            for member in audience.members:
                self._on_too_costly(member, subscription)


# A subscription that gets a frame: with the old image or not, as which op.
_Hit = tuple[Audience[Member], Subscription, bool, str]


def _hits(entry: _Entry[Member], event: DatabaseEvent) -> list[_Hit[Member]]:
    image = event.old if event.op == "DELETE" else event.new
    if image is None or not (entry.decided or entry.judgement.wants(image)):
        return []
    show_old = event.old is not None and entry.judgement.shows(event.old) is True
    return [
        (audience, subscription, show_old, event.op)
        for audience, subscription in entry.subscribers
        if subscription.event in ("*", event.op)
    ]


def _live_hits(entry: _Entry[Member], event: DatabaseEvent) -> list[_Hit[Member]]:
    before = event.old is not None and entry.judgement.wants(event.old)
    after = event.new is not None and entry.judgement.wants(event.new)
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
        for audience, subscription in entry.subscribers
    ]


def _group(hits: Iterable[_Hit[Member]]) -> list[Delivery[Member]]:
    # One frame per channel, op and distinct select, with the ids of every binding that matched.
    # A row that takes another key leaves under the old one before it comes under the new one.
    frames: dict[tuple[Audience[Member], tuple[str, ...] | None, bool, str], set[int]] = {}
    for audience, subscription, show_old, op in hits:
        frames.setdefault((audience, subscription.select, show_old, op), set()).add(subscription.id)
    return [
        Delivery(audience, tuple(sorted(ids)), select, show_old, op)
        for (audience, select, show_old, op), ids in sorted(
            frames.items(), key=lambda frame: frame[0][3] != "DELETE"
        )
    ]
