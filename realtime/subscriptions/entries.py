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

from auth_rls.few import Few
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.index import Index, Keys, index_keys, keys_decide
from auth_rls.predicates.predicate import TRUE, Predicate, Select
from auth_rls.predicates.simplify import simplify
from realtime.event_log.event import DatabaseEvent
from realtime.subscriptions.judgement import MembersOf, RowMatcher, judgement_of

if TYPE_CHECKING:
    from realtime.subscriptions.index import Audience, Subscription

Recipient = TypeVar("Recipient")

# Shared by all entries without a meter, which nobody pays for.
_NOBODY: Counter[object] = Counter()


class Sight(NamedTuple):
    """Which images of an event the policies show. There is one object for each of the four cases,
    since thousands of groups may be judged for an event."""

    old: bool
    new: bool


NOTHING = Sight(False, False)
_OLD, _NEW, _BOTH = Sight(True, False), Sight(False, True), Sight(True, True)


class Entry(Generic[Recipient]):
    """Every subscription on a table with one filter and the same policies, all live or none."""

    __slots__ = (
        "_decided",
        "_everything",
        "filter",
        "group",
        "judgement",
        "subjects",
        "subscribers",
    )

    def __init__(
        self, group: RuleGroup[Recipient], filter_: Predicate, members_of: MembersOf
    ) -> None:
        self.group = group
        self.filter = filter_
        self.judgement = judgement_of(filter_, members_of)
        # Whether the index finds the entry exactly on the rows that match, so that it need not be
        # evaluated.
        self._decided = keys_decide(filter_)
        self._everything = filter_ == TRUE
        # In the order of joining, in which frames leave.
        self.subscribers: Few[tuple[Audience[Recipient], Subscription]] = None
        #: The subjects that pay its costs, each with the number of channels. Metered entries only.
        self.subjects: Counter[object] = _NOBODY if self.judgement.meter is None else Counter()

    def wants(self, row: Mapping[str, Any]) -> bool:
        """Whether the filter lets the row through. The policies must show it. Raises TooCostly."""
        return self.judgement.passes(row)

    def wants_found(self, row: Mapping[str, Any]) -> bool:
        """`wants` for an entry that `candidates` has found by this row alone."""
        return (
            self._everything or (self._decided and self.group.indexed) or self.judgement.passes(row)
        )


class RuleGroup(Generic[Recipient]):
    """Every entry of a table with the same bound policies. Most groups have one entry, because the
    policies are those of one subject, so one entry takes neither a dict nor an index."""

    __slots__ = (
        "_by_filter",
        "_decided",
        "_index",
        "_members_of",
        "_only",
        "_shows",
        "rules",
    )

    def __init__(self, rules: Predicate, members_of: MembersOf) -> None:
        simple = simplify(rules)
        self._members_of = members_of
        self.rules = rules
        self._decided = keys_decide(simple)
        # None for a group that its keys find, until it is judged: most groups never meet a row.
        # Without keys all groups meet the same row, which should not wait for all to be compiled.
        self._shows: RowMatcher | None = None
        if index_keys(simple) is None:
            self._compiled()
        self._only: Entry[Recipient] | None = None
        # Both None until there is a second entry.
        self._by_filter: dict[Predicate, Entry[Recipient]] | None = None
        self._index: Index[Entry[Recipient]] | None = None

    def __len__(self) -> int:
        return self._only is not None if self._by_filter is None else len(self._by_filter)

    def __iter__(self) -> Iterator[Entry[Recipient]]:
        if self._by_filter is not None:
            yield from self._by_filter.values()
        elif self._only is not None:
            yield self._only

    @property
    def indexed(self) -> bool:
        """Whether `candidates` finds entries by the values that they need."""
        return self._index is not None

    @property
    def keys(self) -> Keys | None:
        """The values by which the group is found: see `index_keys`. They are computed, since they
        take more memory than the group and are needed when it comes and goes."""
        return index_keys(simplify(self.rules))

    def entry(self, filter_: Predicate) -> Entry[Recipient]:
        """The entry of this filter, made if there is none."""
        by_filter, only = self._by_filter, self._only
        if by_filter is None:
            if only is not None and only.filter == filter_:
                return only
            made = Entry(self, filter_, self._members_of)
            if only is None:
                self._only = made
                return made
            self._only = None
            by_filter = self._by_filter = {}
            self._index = Index(self._members_of)
            self._add(only)
        elif (found := by_filter.get(filter_)) is not None:
            return found
        else:
            made = Entry(self, filter_, self._members_of)
        self._add(made)
        return made

    def _add(self, entry: Entry[Recipient]) -> None:
        assert self._by_filter is not None and self._index is not None
        self._by_filter[entry.filter] = entry
        self._index.add(entry, index_keys(entry.filter))

    def discard(self, entry: Entry[Recipient]) -> None:
        """Remove an entry of this group."""
        if self._by_filter is None or self._index is None:
            self._only = None
            return
        del self._by_filter[entry.filter]
        self._index.discard(entry, index_keys(entry.filter))

    def sight(self, event: DatabaseEvent) -> Sight:
        """Which images of an event the policies show to a live subscription. Raises what a policy
        that cannot be evaluated raises."""
        if self._shown(event.old):
            return _BOTH if self._shown(event.new) else _OLD
        return _NEW if self._shown(event.new) else NOTHING

    def sight_found(self, event: DatabaseEvent) -> Sight:
        """`sight` for a group that was found by the one row that counts. The old image is judged
        only if the policies show the new one."""
        old, deletes = event.old, event.op == "DELETE"
        if not self._decided and not self._shown(old if deletes else event.new):
            return NOTHING
        if deletes:
            return _OLD
        return _BOTH if old is not None and self._shown(old) else _NEW

    def file_again(self) -> None:
        """Find the entries by the present values of the sets."""
        if self._index is not None:
            self._index.file_again()

    def _shown(self, row: Mapping[str, Any] | None) -> bool:
        return row is not None and (self._shows or self._compiled())(row) is True

    def _compiled(self) -> RowMatcher:
        shows = self._shows = matcher(self.rules, self._members_of)
        return shows

    def candidates(self, *rows: Mapping[str, Any] | None) -> Iterable[Entry[Recipient]]:
        """The entries whose filters may let one of these rows through. The policies must show
        them."""
        if self._index is None:
            return () if self._only is None else (self._only,)
        return self._index.candidates(*rows)

    def live_candidates(self, event: DatabaseEvent, sight: Sight) -> Iterable[Entry[Recipient]]:
        """The live entries whose filters may let one of the images through that the policies
        show."""
        return self.candidates(event.new if sight.new else None, event.old if sight.old else None)


class Entries(Generic[Recipient]):
    """The entries of one table, live or not."""

    __slots__ = ("_index", "_members_of", "groups")

    def __init__(self, members_of: MembersOf) -> None:
        self._members_of = members_of
        #: By policies. To be read only.
        self.groups: dict[Predicate, RuleGroup[Recipient]] = {}
        self._index: Index[RuleGroup[Recipient]] = Index(members_of)

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    def __iter__(self) -> Iterator[Entry[Recipient]]:
        for group in self.groups.values():
            yield from group

    def entry(self, subscription: Subscription) -> Entry[Recipient]:
        """The entry of this subscription, made if there is none."""
        group = self.groups.get(subscription.rls)
        if group is None:
            group = RuleGroup(subscription.rls, self._members_of)
            self.groups[subscription.rls] = group
            self._index.add(group, group.keys)
        return group.entry(subscription.filter)

    def discard(self, entry: Entry[Recipient]) -> None:
        """Remove an entry, which has no subscribers any more."""
        group = entry.group
        group.discard(entry)
        if not group:
            del self.groups[group.rules]
            self._index.discard(group, group.keys)

    def candidates(self, *rows: Mapping[str, Any] | None) -> Iterable[RuleGroup[Recipient]]:
        """The groups whose policies may show one of these rows, each once."""
        return self._index.candidates(*rows)

    def follow(self, select: Select, added: Iterable[object], removed: Iterable[object]) -> None:
        """The set behind a select has gained and lost these members."""
        self._index.follow(select, added, removed)

    def file_again(self) -> None:
        """Find all entries by the present values of the sets."""
        self._index.file_again()
        for group in self.groups.values():
            group.file_again()
