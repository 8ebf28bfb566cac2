"""The judgement of a row for one subscription: the policies first, then the client's filter.

The order protects rows. A filter is a client's own text, and its cost can be measured from outside,
so it is never evaluated on a row that the policies hide. On the other rows its cost is bounded for
each event.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from auth_rls.predicates.evaluate import Meter, matcher
from auth_rls.predicates.operators import operator_of
from auth_rls.predicates.predicate import TRUE, Predicate, Select, tests

if TYPE_CHECKING:
    from realtime.subscriptions.index import Subscription

STEPS_PER_EVENT = 500_000
"""What the filter of a subscription may cost on one event, in characters of text times instructions
of the patterns that are matched with them. Some milliseconds at most."""

STEPS_PER_CONNECTION = 4 * STEPS_PER_EVENT
"""What the filters of all channels of one socket may cost on one event, beside the first
STEPS_PER_EVENT that the filters of all sockets cost together."""

STEPS_PER_SUBJECT = 4 * STEPS_PER_CONNECTION
"""What the filters of all sockets of one user, or of one address, may cost on one event."""

# A step is some nanoseconds.
_STEPS_PER_CONDITION = 50
_STEPS_TO_COMPILE = 2_000

TOO_COSTLY = "its filter would cost too much on a row; filter for less, or by shorter patterns"
"""The reason that a client gets when a subscription ends for its cost."""

RowMatcher = Callable[[Mapping[str, Any]], bool | None]
"""A predicate as a function of a row's values: True, False, or None for unknown."""

MembersOf = Callable[[Select], Collection[object]]


class FilterTooCostly(Exception):
    """The filter of `subscription` costs more on a row than is allowed."""

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(f"the filter on {subscription.table} costs too much")
        self.subscription = subscription


class FilterJudgement:
    """A client's filter, at a bounded cost for each event."""

    __slots__ = ("_conditions", "_filter", "_members_of", "_passes", "meter", "weight")

    def __init__(self, filter_: Predicate, members_of: MembersOf | None = None) -> None:
        conditions = tuple(tests(filter_))
        costs = any(operator_of(test.op).pattern is not None for test in conditions)
        self.meter: Meter | None = Meter(STEPS_PER_EVENT) if costs else None
        """Of a filter that has patterns, and so a cost that depends on the row. To be set to
        STEPS_PER_EVENT before each event."""
        self._conditions = len(conditions)
        self.weight = self._conditions * _STEPS_TO_COMPILE
        """What else judging a row costs, in steps: more for the first, for which the filter is
        compiled."""
        self._filter = filter_
        self._members_of = members_of
        self._passes: RowMatcher | None = _everything if filter_ == TRUE else None

    def passes(self, row: Mapping[str, Any]) -> bool:
        """Whether the filter lets a row through. It must be one that the policies show.

        Raises TooCostly where the filter would cost more than an event may.
        """
        passes = self._passes
        if passes is None:
            # Many filters never meet a row, and a join must not wait for all of its own.
            passes = self._passes = matcher(self._filter, self._members_of, self.meter)
            self.weight = self._conditions * _STEPS_PER_CONDITION
        return passes(row) is True


def _everything(row: Mapping[str, Any]) -> bool:
    return True


# It has no state: nothing is compiled and nothing is charged. Most subscriptions have no filter.
_OF_NO_FILTER = FilterJudgement(TRUE)


def judgement_of(filter_: Predicate, members_of: MembersOf | None = None) -> FilterJudgement:
    """The judgement of a filter, for one entry."""
    return _OF_NO_FILTER if filter_ == TRUE else FilterJudgement(filter_, members_of)


class Judgement(FilterJudgement):
    """The policies and the filter of a subscription together. `shows` is the verdict of the
    policies alone."""

    __slots__ = ("shows",)

    def __init__(
        self, rls: Predicate, filter_: Predicate, members_of: MembersOf | None = None
    ) -> None:
        super().__init__(filter_, members_of)
        self.shows: RowMatcher = matcher(rls, members_of)

    def wants(self, row: Mapping[str, Any]) -> bool:
        """Whether the policies show the row and the filter lets it through. Raises as `passes`."""
        return self.shows(row) is True and self.passes(row)
