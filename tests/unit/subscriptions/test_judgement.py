"""Judgement: the policies first, then the client's filter, and at a bounded cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from auth_rls.predicates.evaluate import TooCostly
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import FALSE, TRUE, All, Any_, Not, Predicate, Test
from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.subscriptions.index import AudienceKey, Subscription, SubscriptionIndex
from realtime.subscriptions.judgement import STEPS_PER_EVENT, Judgement
from tests.support.small_rows import relation_of

KINDS = {"id": Kind.INT, "body": Kind.TEXT, "score": Kind.INT}
RELATION = relation_of(KINDS)
# "score" sorts behind the column of each of these filters.
SHOWN = Test("score", "gte", 10)
FILTERS = [
    Test("body", "match", "salary: 9"),
    Not(Test("body", "like", "%salary%")),
    All((Test("body", "ilike", "_a%"), Test("body", "imatch", "y"))),
    Test("body", "isnull", True),
    Test("body", "gt", "a"),
    Test("body", "exact", "salary: 91000"),
    Test("body", "in", frozenset({"salary: 91000", "x"})),
    Any_((Test("body", "exact", "salary: 91000"), Test("body", "exact", "x"))),
]


class Watched(RowImage):
    """A row that counts how often its text is asked for."""

    def __init__(self, **values: Any) -> None:
        super().__init__(json.dumps(values).encode(), KINDS)
        self.judged = 0

    def get(self, name: str, default: Any = None) -> Any:
        self.judged += name == "body"
        return super().get(name, default)


def event(op: str, old: RowImage | None, new: RowImage | None) -> DatabaseEvent:
    return DatabaseEvent(1, 1, RELATION, op, old, new)


def index(rls: Predicate, filter_: Predicate, live: bool) -> SubscriptionIndex[str]:
    failures: list[Exception] = []
    found: SubscriptionIndex[str] = SubscriptionIndex(lambda _, error: failures.append(error))
    wanted = Subscription(1, "public", "t", "*", filter_, rls, live=live)
    found.set("client", AudienceKey("realtime:a", "2.0.0", (wanted,)))
    return found


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("filter_", FILTERS)
def test_a_filter_is_never_put_to_a_row_that_the_policies_hide(
    filter_: Predicate, live: bool
) -> None:
    for rls in (SHOWN, Any_((SHOWN, Test("id", "exact", 0))), Not(Test("score", "lt", 10))):
        subscriptions = index(rls, filter_, live)
        hidden, shown = Watched(id=1, body="salary: 91000", score=1), Watched(id=1, body="x")
        unknown = Watched(id=1, body="salary: 91000", score=None)
        for op, old, new in (
            ("INSERT", None, hidden),
            ("UPDATE", hidden, unknown),
            ("UPDATE", shown, hidden),
            ("DELETE", hidden, None),
        ):
            subscriptions.match(event(op, old, new))
        assert (hidden.judged, shown.judged, unknown.judged) == (0, 0, 0)
        seen = Watched(id=1, body="salary: 91000", score=10)
        subscriptions.match(event("INSERT", None, seen))
        assert seen.judged > 0


@pytest.mark.parametrize("live", [False, True])
def test_what_is_done_for_a_hidden_row_does_not_depend_on_what_filters_ask_for(live: bool) -> None:
    subscriptions: SubscriptionIndex[str] = SubscriptionIndex(lambda _, error: None)
    for number in range(100):
        guess = All((Test("body", "exact", "salary: 9"), Not(Test("id", "exact", -number))))
        wanted = Subscription(1, "public", "t", "*", guess, SHOWN, live=live)
        subscriptions.set(f"m{number}", AudienceKey(f"realtime:{number}", "2.0.0", (wanted,)))

    def work(body: str, score: int) -> int:
        before = subscriptions.evaluated
        for op in ("INSERT", "UPDATE", "DELETE"):
            old = None if op == "INSERT" else Watched(id=1, body=body, score=score)
            new = None if op == "DELETE" else Watched(id=2, body=body, score=score)
            subscriptions.match(event(op, old, new))
        return subscriptions.evaluated - before

    assert work("salary: 9", 1) == work("salary: 8", 1)
    assert work("salary: 9", 10) > work("salary: 8", 10)


def test_nothing_of_a_filter_is_compiled_before_a_row_is_shown() -> None:
    judgement = Judgement(FALSE, Test("body", "match", "("))
    assert judgement.wants(Watched(id=1, body="x", score=1)) is False
    with pytest.raises(ValueError, match="invalid regular expression"):
        Judgement(TRUE, Test("body", "match", "(")).wants(Watched(id=1, body="x", score=1))


def test_a_filter_that_costs_too_much_on_an_event_is_stopped_before_it_runs() -> None:
    costly = All(tuple(Test("body", "match", f"[ab].{{{n}}}x") for n in range(90, 100)))
    judgement = Judgement(TRUE, costly)
    assert judgement.meter is not None
    with pytest.raises(TooCostly):
        judgement.wants(Watched(id=1, body="c" * 9_999 + "x"))
    assert 0 <= judgement.meter.left <= STEPS_PER_EVENT


def test_the_cost_is_counted_for_each_event_over_both_images() -> None:
    judgement = Judgement(TRUE, Test("body", "match", "(error|warn|fatal).*timeout"))
    meter = judgement.meter
    assert meter is not None
    row = Watched(id=1, body="x" * 10_000)
    for _ in range(3):
        meter.left = STEPS_PER_EVENT
        judgement.wants(row)
        once = STEPS_PER_EVENT - meter.left
    meter.left = STEPS_PER_EVENT
    judgement.wants(row)
    with pytest.raises(TooCostly):
        for _ in range(STEPS_PER_EVENT // once):
            judgement.wants(row)
