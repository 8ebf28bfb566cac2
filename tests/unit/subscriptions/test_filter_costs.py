"""The costs of filters are charged to their connections and subjects, and bounded for each."""

from __future__ import annotations

import json

import pytest

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE, Not, Test
from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.subscriptions.filter_costs import Payers
from realtime.subscriptions.index import AudienceKey, Subscription, SubscriptionIndex
from tests.support.small_rows import relation_of

KINDS = {"id": Kind.INT, "body": Kind.TEXT}
RELATION = relation_of(KINDS)


def inserted(body: str) -> DatabaseEvent:
    image = RowImage(json.dumps({"id": 1, "body": body}).encode(), KINDS)
    return DatabaseEvent(1, 1, RELATION, "INSERT", None, image)


def test_whose_filter_costs_too_much_is_named_and_others_get_the_event() -> None:
    ended: list[tuple[str, int]] = []
    subscriptions: SubscriptionIndex[str] = SubscriptionIndex(
        lambda _, error: pytest.fail(str(error)),
        on_too_costly=lambda member, item: ended.append((member, item.id)),
    )
    costly = Not(Test("body", "match", "[ab].{90}x"))
    for member, filter_ in (("bad", costly), ("good", Test("body", "ilike", "%C%"))):
        wanted = Subscription(7, "public", "t", "*", filter_, TRUE)
        subscriptions.set(member, AudienceKey(f"realtime:{member}", "2.0.0", (wanted,)))
    found = subscriptions.match(inserted("c" * 20_000))
    assert [set(delivery.audience.recipients) for delivery in found] == [{"good"}]
    assert ended == [("bad", 7)]
    assert len(subscriptions.match(inserted("c"))) == 2


def test_the_filters_of_one_connection_are_bounded_together() -> None:
    ended: list[str] = []
    subscriptions: SubscriptionIndex[str] = SubscriptionIndex(
        lambda _, error: pytest.fail(str(error)),
        on_too_costly=lambda member, item: ended.append(member),
        payers_of=lambda member: Payers(member[0], member[0]),
    )
    for member in [*(f"a{n:02}" for n in range(40)), "b"]:
        filter_ = Not(Test("body", "match", f"(error|warn|fatal).*timeout{member}"))
        wanted = Subscription(1, "public", "t", "*", filter_, TRUE)
        subscriptions.set(member, AudienceKey(f"realtime:{member}", "2.0.0", (wanted,)))
    found = subscriptions.match(inserted("x" * 10_000))
    served = {member for delivery in found for member in delivery.audience.recipients}
    assert "b" in served
    assert ended and set(ended) | served == {*(f"a{n:02}" for n in range(40)), "b"}
    assert not set(ended) & served
    assert len(subscriptions.match(inserted("x"))) == 41


def test_the_filters_of_all_connections_of_a_subject_are_bounded_together() -> None:
    ended: list[str] = []
    subscriptions: SubscriptionIndex[str] = SubscriptionIndex(
        lambda _, error: pytest.fail(str(error)),
        on_too_costly=lambda member, item: ended.append(member),
        payers_of=lambda member: Payers(member, member[0]),
    )
    everybody = [*(f"a{n:03}" for n in range(400)), "b"]
    for member in everybody:
        # Twenty sockets of one subject ask for the same: one filter, charged to their subject.
        filter_ = Not(Test("body", "match", f"(error|warn|fatal).*timeout{member[:3]}"))
        wanted = Subscription(1, "public", "t", "*", filter_, TRUE)
        subscriptions.set(member, AudienceKey(f"realtime:{member}", "2.0.0", (wanted,)))
    long = inserted("x" * 12_000)
    found = subscriptions.match(long)
    served = {member for delivery in found for member in delivery.audience.recipients}
    assert "b" in served
    assert ended and set(ended) | served == set(everybody)
    assert not set(ended) & served
    for member in everybody:
        subscriptions.remove(member)
    assert subscriptions.match(long) == []
