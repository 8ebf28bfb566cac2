"""The judgement of a row for one subscription: the policies first, then the client's filter.

The order is a wall. A filter is a client's own text, and what it costs can be measured from
outside: it is never put to a row that the policies do not show. What it costs on the rows that they
do show is bounded for each event.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from auth_rls.predicates.evaluate import Meter, matcher
from auth_rls.predicates.patterns import MAKERS
from auth_rls.predicates.predicate import TRUE, Predicate, Select, tests

if TYPE_CHECKING:
    from realtime.subscriptions.index import Subscription

STEPS_PER_EVENT = 500_000
"""What the filter of a subscription may cost on one event: characters of text times instructions of
the patterns they are put to. Some milliseconds at the very most."""

STEPS_PER_CONNECTION = 4 * STEPS_PER_EVENT
"""What the filters of all channels of one socket may cost on one event, beside the first
STEPS_PER_EVENT that the filters of all sockets cost together."""

TOO_COSTLY = "its filter would cost too much on a row; filter for less, or by shorter patterns"
"""Why a subscription is ended that goes beyond."""

Verdict = Callable[[Mapping[str, Any]], bool | None]
MembersOf = Callable[[Select], Collection[object]]


class FilterTooCostly(Exception):
    """The filter of `subscription` costs more on a row than is allowed."""

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(f"the filter on {subscription.table} costs too much")
        self.subscription = subscription


class Judgement:
    """Made of a subject's bound policies and a filter. `shows` is the policies' verdict alone."""

    __slots__ = ("_filter", "_shows_all", "meter", "shows")

    def __init__(
        self, rls: Predicate, filter_: Predicate, members_of: MembersOf | None = None
    ) -> None:
        costs = any(test.op in MAKERS for test in tests(filter_))
        self.meter: Meter | None = Meter(STEPS_PER_EVENT) if costs else None
        """Of a filter that has patterns, and so a cost that depends on the row. To be set to
        STEPS_PER_EVENT before each event."""
        self._filter = None if filter_ == TRUE else matcher(filter_, members_of, self.meter)
        self._shows_all = rls == TRUE
        self.shows: Verdict = matcher(rls, members_of)

    def wants(self, row: Mapping[str, Any]) -> bool:
        """Whether the policies show the row and the filter lets it through.

        Raises TooCostly where the filter would cost more than an event may.
        """
        if not self._shows_all and self.shows(row) is not True:
            return False
        return self._filter is None or self._filter(row) is True
