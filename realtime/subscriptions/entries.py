"""The entries of one table: subscriptions by their policies, and under these by their filters.

An event first finds the groups of subscriptions whose policies may show its rows, by the values
that policies need, and the policies of each group are judged once. Only under policies that show a
row are filters looked up, by the values that they need, and judged. The order protects hidden rows:
the work for a row that the policies hide depends on no client's filter, not even on whether the row
has a value that a filter names.

Pure. Makes no deliveries and charges no costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.index import Index, index_keys, keys_decide
from auth_rls.predicates.predicate import TRUE, Predicate, Select
from auth_rls.predicates.simplify import simplify
from realtime.event_log.event import DatabaseEvent
from realtime.subscriptions.judgement import FilterJudgement, MembersOf, RowMatcher

if TYPE_CHECKING:
    from realtime.subscriptions.index import Audience, Subscription

Recipient = TypeVar("Recipient")


class Sight(NamedTuple):
    """Which images of an event the policies show."""

    old: bool
    new: bool


NOTHING = Sight(False, False)


class Entry(Generic[Recipient]):
    """Every subscription on a table with one filter and the same policies, all live or none."""

    __slots__ = ("_decided", "filter", "group", "judgement", "keys", "subjects", "subscribers")

    def __init__(
        self, group: RuleGroup[Recipient], filter_: Predicate, members_of: MembersOf
    ) -> None:
        self.group = group
        self.filter = filter_
        self.judgement = FilterJudgement(filter_, members_of)
        self.keys = index_keys(filter_)
        # Whether the index finds the entry exactly on the rows that match, so that it need not be
        # evaluated.
        self._decided = keys_decide(filter_)
        # A dict as an ordered set: frames leave in the order of joining.
        self.subscribers: dict[tuple[Audience[Recipient], Subscription], None] = {}
        #: The subjects that pay its costs, each with the number of channels. Metered entries only.
        self.subjects: Counter[object] = Counter()

    def wants(self, row: Mapping[str, Any]) -> bool:
        """Whether the filter lets the row through. The policies must show it. Raises TooCostly."""
        return self.judgement.passes(row)

    def wants_found(self, row: Mapping[str, Any]) -> bool:
        """`wants` for an entry that `candidates` has found by this row alone."""
        return (self._decided and self.group.indexed) or self.judgement.passes(row)


class RuleGroup(Generic[Recipient]):
    """Every entry of a table with the same bound policies."""

    __slots__ = ("_decided", "_index", "_members_of", "_shows", "by_filter", "keys", "rules")

    def __init__(self, rules: Predicate, members_of: MembersOf) -> None:
        simple = simplify(rules)
        self._members_of = members_of
        self.rules = rules
        self.keys = index_keys(simple)
        self._decided = keys_decide(simple)
        self._shows: RowMatcher | None = None if rules == TRUE else matcher(rules, members_of)
        self.by_filter: dict[Predicate, Entry[Recipient]] = {}
        # None for a single entry.
        self._index: Index[Entry[Recipient]] | None = None

    @property
    def indexed(self) -> bool:
        """Whether `candidates` finds entries by the values that they need."""
        return self._index is not None

    def entry(self, filter_: Predicate) -> Entry[Recipient]:
        """The entry of this filter, made if there is none."""
        found = self.by_filter.get(filter_)
        if found is not None:
            return found
        found = self.by_filter[filter_] = Entry(self, filter_, self._members_of)
        if self._index is not None:
            self._index.add(found, found.keys)
        elif len(self.by_filter) > 1:
            self._index = Index(self._members_of)
            for each in self.by_filter.values():
                self._index.add(each, each.keys)
        return found

    def discard(self, entry: Entry[Recipient]) -> None:
        """Remove an entry of this group."""
        del self.by_filter[entry.filter]
        if self._index is not None:
            self._index.discard(entry, entry.keys)

    def sight(self, event: DatabaseEvent) -> Sight:
        """Which images of an event the policies show to a live subscription. Raises what a policy
        that cannot be evaluated raises."""
        return Sight(self._shown(event.old), self._shown(event.new))

    def sight_found(self, event: DatabaseEvent) -> Sight:
        """`sight` for a group that was found by the one row that counts. The old image is judged
        only if the policies show the new one."""
        image = event.old if event.op == "DELETE" else event.new
        if not self._decided and not self._shown(image):
            return NOTHING
        if event.op == "DELETE":
            return Sight(True, False)
        return Sight(self._shown(event.old), True)

    def _shown(self, row: Mapping[str, Any] | None) -> bool:
        return row is not None and (self._shows is None or self._shows(row) is True)

    def candidates(self, *rows: Mapping[str, Any] | None) -> Iterable[Entry[Recipient]]:
        """The entries whose filters may let one of these rows through. The policies must show
        them."""
        if self._index is None:
            return tuple(self.by_filter.values())
        return self._index.candidates(*rows)


class Entries(Generic[Recipient]):
    """The entries of one table, live or not."""

    __slots__ = ("_groups", "_index", "_members_of")

    def __init__(self, members_of: MembersOf) -> None:
        self._members_of = members_of
        self._groups: dict[Predicate, RuleGroup[Recipient]] = {}
        self._index: Index[RuleGroup[Recipient]] = Index(members_of)

    def __len__(self) -> int:
        return sum(len(group.by_filter) for group in self._groups.values())

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __iter__(self) -> Iterator[Entry[Recipient]]:
        for group in self._groups.values():
            yield from group.by_filter.values()

    def entry(self, subscription: Subscription) -> Entry[Recipient]:
        """The entry of this subscription, made if there is none."""
        group = self._groups.get(subscription.rls)
        if group is None:
            group = RuleGroup(subscription.rls, self._members_of)
            self._groups[subscription.rls] = group
            self._index.add(group, group.keys)
        return group.entry(subscription.filter)

    def discard(self, entry: Entry[Recipient]) -> None:
        """Remove an entry, which has no subscribers any more."""
        group = entry.group
        group.discard(entry)
        if not group.by_filter:
            del self._groups[group.rules]
            self._index.discard(group, group.keys)

    def candidates(self, *rows: Mapping[str, Any] | None) -> Iterable[RuleGroup[Recipient]]:
        """The groups whose policies may show one of these rows, each once."""
        return self._index.candidates(*rows)

    def follow(self, select: Select, added: Iterable[object], removed: Iterable[object]) -> None:
        """The set behind a select has gained and lost these members."""
        self._index.follow(select, added, removed)
