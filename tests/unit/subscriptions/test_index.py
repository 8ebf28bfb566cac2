"""Subscriptions: who is found for an event, and what each audience is to be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import FALSE, TRUE, All, Any_, Not, Predicate, Select, Test
from auth_rls.sets.live_set import SetDelta
from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.subscriptions.index import AudienceKey, Delivery, Subscription, SubscriptionIndex
from realtime.wal.entry import ColumnInfo, Relation
from tests.support.small_rows import RELATION, row


def event(
    op: str,
    *,
    old: RowImage | None = None,
    new: RowImage | None = None,
    relation: Relation = RELATION,
) -> DatabaseEvent:
    return DatabaseEvent(1, 1, relation, op, old, new)


def subscription(**changes: Any) -> Subscription:
    given_: dict[str, Any] = {
        "id": 1,
        "schema": "public",
        "table": "t",
        "event": "*",
        "filter": TRUE,
        "rls": TRUE,
    }
    return Subscription(**{**given_, **changes})


def key(*subscriptions: Subscription, topic: str = "realtime:a") -> AudienceKey:
    return AudienceKey(topic, "2.0.0", subscriptions)


def manager() -> tuple[SubscriptionIndex[str], list[Exception]]:
    failures: list[Exception] = []
    return SubscriptionIndex(lambda _, error: failures.append(error)), failures


def owner(value: int) -> Predicate:
    return Test("owner", "exact", value)


def found(subscriptions: SubscriptionIndex[str], happened: DatabaseEvent) -> set[str]:
    return {
        member
        for delivery in subscriptions.match(happened)
        for member in delivery.audience.recipients
    }


def test_only_those_whose_predicate_holds_are_found() -> None:
    subscriptions, _ = manager()
    subscriptions.set("one", key(subscription(rls=owner(1))))
    subscriptions.set("two", key(subscription(rls=owner(2))))
    assert found(subscriptions, event("INSERT", new=row(id=1, owner=2))) == {"two"}


def test_an_unknown_verdict_is_a_refusal() -> None:
    subscriptions, _ = manager()
    subscriptions.set("one", key(subscription(rls=Not(owner(1)))))
    assert found(subscriptions, event("INSERT", new=row(id=1, owner=None))) == set()
    assert found(subscriptions, event("INSERT", new=row(id=1))) == set()


def test_members_who_ask_for_the_same_share_one_delivery() -> None:
    subscriptions, _ = manager()
    for member in ("a", "b", "c"):
        subscriptions.set(member, key(subscription()))
    (delivery,) = subscriptions.match(event("INSERT", new=row(id=1)))
    assert set(delivery.audience.recipients) == {"a", "b", "c"}
    assert subscriptions.entries == 1


def test_a_channel_gets_one_frame_with_the_ids_of_all_its_bindings() -> None:
    subscriptions, _ = manager()
    several = key(
        subscription(id=3), subscription(id=1, event="INSERT"), subscription(id=2, event="DELETE")
    )
    subscriptions.set("a", several)
    (delivery,) = subscriptions.match(event("INSERT", new=row(id=1)))
    assert delivery.ids == (1, 3)


def test_different_selects_of_one_channel_are_different_frames() -> None:
    subscriptions, _ = manager()
    subscriptions.set("a", key(subscription(id=1), subscription(id=2, select=("title",))))
    deliveries = subscriptions.match(event("INSERT", new=row(id=1)))
    assert {(d.ids, d.select) for d in deliveries} == {((1,), None), ((2,), ("title",))}


def test_an_update_is_judged_by_the_new_row_and_shows_the_old_one_only_to_who_saw_it() -> None:
    subscriptions, _ = manager()
    subscriptions.set("one", key(subscription(rls=owner(1))))
    came = event("UPDATE", old=row(id=1, owner=2), new=row(id=1, owner=1))
    (delivery,) = subscriptions.match(came)
    assert delivery.show_old is False
    stayed = event("UPDATE", old=row(id=1, owner=1), new=row(id=1, owner=1))
    (delivery,) = subscriptions.match(stayed)
    assert delivery.show_old is True
    left = event("UPDATE", old=row(id=1, owner=1), new=row(id=1, owner=2))
    assert subscriptions.match(left) == []


def test_a_delete_is_judged_by_the_old_row() -> None:
    subscriptions, _ = manager()
    subscriptions.set("one", key(subscription(rls=owner(1), filter=Test("id", "exact", 5))))
    assert found(subscriptions, event("DELETE", old=row(id=5, owner=1))) == {"one"}
    assert found(subscriptions, event("DELETE", old=row(id=5, owner=2))) == set()
    assert found(subscriptions, event("DELETE", old=row(id=6, owner=1))) == set()


def test_a_table_captured_for_policies_only_reaches_nobody() -> None:
    subscriptions, _ = manager()
    subscriptions.set("one", key(subscription()))
    internal = Relation("r2", "public", "t", RELATION.columns, ("id",), published=False)
    assert subscriptions.match(event("INSERT", new=row(id=1), relation=internal)) == []


def test_an_update_of_hidden_columns_alone_is_not_noticed() -> None:
    subscriptions, _ = manager()
    subscriptions.set("one", key(subscription()))
    columns = (*RELATION.columns[:2], ColumnInfo("title", "text", Kind.TEXT, hidden=True))
    relation = Relation("r3", "public", "t", columns, ("id",))
    hidden = event(
        "UPDATE",
        old=row(id=1, owner=1, title="a"),
        new=row(id=1, owner=1, title="b"),
        relation=relation,
    )
    assert subscriptions.match(hidden) == []


def test_who_unsubscribed_is_not_found_and_nothing_is_left_behind() -> None:
    subscriptions, _ = manager()
    # The same binding twice is one entry, and leaves once.
    twice = key(subscription(rls=owner(1)), subscription(rls=owner(1)))
    subscriptions.set("a", twice)
    subscriptions.set("b", twice)
    subscriptions.remove("a")
    assert found(subscriptions, event("INSERT", new=row(id=1, owner=1))) == {"b"}
    subscriptions.remove("b")
    subscriptions.remove("b")
    assert subscriptions.entries == len(subscriptions) == 0


def test_setting_again_replaces_and_says_whether_anything_changed() -> None:
    subscriptions, _ = manager()
    assert subscriptions.set("a", key(subscription(rls=owner(1))))
    assert not subscriptions.set("a", key(subscription(rls=owner(1))))
    assert subscriptions.set("a", key(subscription(rls=FALSE)))
    assert found(subscriptions, event("INSERT", new=row(id=1, owner=1))) == set()


def test_filters_come_and_go_under_the_same_policies() -> None:
    subscriptions, _ = manager()
    for id_ in (None, 1, 2, 3):
        filter_ = TRUE if id_ is None else Test("id", "exact", id_)
        subscriptions.set(f"{id_}", key(subscription(rls=owner(1), filter=filter_)))

    def found_by(id_: int) -> set[str]:
        return found(subscriptions, event("INSERT", new=row(id=id_, owner=1)))

    assert [found_by(id_) for id_ in (1, 2, 9)] == [{"None", "1"}, {"None", "2"}, {"None"}]
    subscriptions.remove("None")
    subscriptions.remove("1")
    subscriptions.remove("3")
    assert [found_by(id_) for id_ in (1, 2, 9)] == [set(), {"2"}, set()]
    subscriptions.remove("2")
    assert subscriptions.entries == 0
    subscriptions.set("1", key(subscription(rls=owner(1), filter=Test("id", "exact", 1))))
    assert [found_by(id_) for id_ in (1, 2)] == [{"1"}, set()]
    assert subscriptions.entries == 1


def test_a_predicate_that_cannot_be_evaluated_denies_its_own_subscribers_only() -> None:
    subscriptions, failures = manager()
    broken = Test("title", "gt", 5)  # text compared with a number: no such thing
    subscriptions.set("broken", key(subscription(rls=broken)))
    subscriptions.set("fine", key(subscription()))
    assert found(subscriptions, event("INSERT", new=row(id=1, title="x"))) == {"fine"}
    assert len(failures) == 1


_values = st.none() | st.integers(0, 3)
_leaves = st.builds(
    Test, st.sampled_from(["id", "owner"]), st.just("exact"), st.integers(0, 3)
) | st.builds(
    Test,
    st.sampled_from(["id", "owner"]),
    st.just("in"),
    st.frozensets(st.integers(0, 3), max_size=3),
)
_predicates = st.recursive(
    _leaves,
    lambda inner: (
        st.builds(All, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Any_, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=8,
)


@given(predicates=st.lists(_predicates, max_size=6), id_=_values, owner_=_values)
def test_the_index_finds_exactly_what_asking_everybody_would_find(
    predicates: list[Predicate], id_: int | None, owner_: int | None
) -> None:
    subscriptions, _ = manager()
    for number, predicate in enumerate(predicates):
        subscriptions.set(str(number), key(subscription(rls=predicate)))
    image = row(id=id_, owner=owner_)
    asked = {
        str(number)
        for number, predicate in enumerate(predicates)
        if matcher(predicate)(image) is True
    }
    assert found(subscriptions, event("INSERT", new=image)) == asked
    for number in range(len(predicates)):
        subscriptions.remove(str(number))
    assert subscriptions.entries == 0


# --- live sets ----------------------------------------------------------------------------------


def live(**changes: Any) -> tuple[SubscriptionIndex[str], list[Exception]]:
    made, failures = manager()
    made.set("a", key(subscription(live=True, **changes)))
    return made, failures


def ops(subscriptions: SubscriptionIndex[str], happened: DatabaseEvent) -> list[str]:
    return [delivery.op for delivery in subscriptions.match(happened)]


def test_an_update_is_to_a_live_set_what_it_does_to_the_set() -> None:
    subscriptions, _ = live(rls=owner(1), filter=Test("title", "exact", "t"))
    inside, outside = row(id=1, owner=1, title="t"), row(id=1, owner=2, title="t")
    unknown = row(id=1, owner=None, title="t")
    expected = {
        (True, True): ["UPDATE"],
        (True, False): ["DELETE"],
        (False, True): ["INSERT"],
        (False, False): [],
    }
    for old in (inside, outside, unknown):
        for new in (inside, outside, unknown):
            happened = event("UPDATE", old=old, new=new)
            assert ops(subscriptions, happened) == expected[old is inside, new is inside]
    assert ops(subscriptions, event("INSERT", new=inside)) == ["INSERT"]
    assert ops(subscriptions, event("INSERT", new=unknown)) == []
    assert ops(subscriptions, event("DELETE", old=inside)) == ["DELETE"]
    assert ops(subscriptions, event("DELETE", old=unknown)) == []


def test_a_row_that_takes_another_key_is_two_frames_the_old_key_first() -> None:
    subscriptions, _ = live()
    subscriptions.set("b", key(subscription(id=2, live=True, rls=owner(2)), topic="realtime:b"))
    happened = event("UPDATE", old=row(id=1, owner=2), new=row(id=2, owner=2))
    assert ops(subscriptions, happened) == ["DELETE", "DELETE", "INSERT", "INSERT"]
    happened = event("UPDATE", old=row(id=1, owner=1), new=row(id=2, owner=2))
    assert ops(subscriptions, happened) == ["DELETE", "INSERT", "INSERT"]


def test_a_change_of_what_is_not_shown_moves_a_row_of_a_live_set_and_is_else_no_news() -> None:
    subscriptions, _ = live(rls=owner(1))
    columns = (*RELATION.columns[:1], ColumnInfo("owner", "int", Kind.INT, hidden=True))
    relation = Relation("r4", "public", "t", columns, ("id",))

    def moved(before: int, after: int) -> list[str]:
        return ops(
            subscriptions,
            event(
                "UPDATE",
                old=row(id=1, owner=before),
                new=row(id=1, owner=after),
                relation=relation,
            ),
        )

    assert (moved(1, 2), moved(2, 1), moved(1, 1)) == (["DELETE"], ["INSERT"], [])


def test_one_channel_hears_of_one_change_what_each_of_its_bindings_makes_of_it() -> None:
    subscriptions, _ = manager()
    several = key(
        subscription(id=1),
        subscription(id=2, live=True),
        subscription(id=3, live=True, filter=owner(1)),
        subscription(id=4, live=True, filter=owner(2)),
    )
    subscriptions.set("a", several)
    deliveries = subscriptions.match(
        event("UPDATE", old=row(id=1, owner=1), new=row(id=1, owner=2))
    )
    assert [(d.op, d.ids) for d in deliveries] == [
        ("DELETE", (3,)),
        ("UPDATE", (1, 2)),
        ("INSERT", (4,)),
    ]
    assert subscriptions.on_table("public", "t") == {"a"}
    subscriptions.remove("a")
    assert subscriptions.entries == 0
    assert not subscriptions.on_table("public", "t")


@given(
    predicates=st.lists(_predicates, max_size=5),
    rows=st.lists(st.none() | st.tuples(_values, _values), min_size=2, max_size=12),
)
def test_a_live_set_is_always_the_rows_its_predicate_holds_for(
    predicates: list[Predicate], rows: list[tuple[int | None, int | None] | None]
) -> None:
    """The history of one row: None where it is not there."""
    subscriptions, _ = manager()
    for number, predicate in enumerate(predicates):
        subscriptions.set(str(number), key(subscription(rls=predicate, live=True)))
    sets: dict[str, set[int | None]] = {str(number): set() for number in range(len(predicates))}
    images = [None if values is None else row(id=values[0], owner=values[1]) for values in rows]
    for old, new in zip([None, *images], images, strict=False):
        if old is None and new is None:
            continue
        op = "INSERT" if old is None else "DELETE" if new is None else "UPDATE"
        for delivery in subscriptions.match(event(op, old=old, new=new)):
            for member in delivery.audience.recipients:
                image = old if delivery.op == "DELETE" else new
                assert image is not None
                if delivery.op == "DELETE":
                    sets[member].remove(image["id"])
                elif delivery.op == "INSERT":
                    assert image["id"] not in sets[member]
                    sets[member].add(image["id"])
                else:
                    assert image["id"] in sets[member]
        for number, predicate in enumerate(predicates):
            holds = new is not None and matcher(predicate)(new) is True
            assert sets[str(number)] == ({new["id"]} if holds and new is not None else set())


# --- sets that change ---------------------------------------------------------------------------

MINE = Select("app.Member", "owner", TRUE, kind=Kind.INT)


def of_set(
    members: set[object], *subscriptions: Subscription
) -> tuple[SubscriptionIndex[str], Callable[..., None]]:
    """A manager with these subscriptions, and what moves the set that they look into."""
    found: SubscriptionIndex[str] = SubscriptionIndex(lambda *_: None, lambda _: members)
    for number, item in enumerate(subscriptions):
        found.set(f"channel {number}", key(item, topic=f"realtime:{number}"))

    def shift(added: set[object], removed: set[object]) -> None:
        members.difference_update(removed)
        members.update(added)
        found.follow(MINE, SetDelta(frozenset(added), frozenset(removed)))

    return found, shift


def topics(found: SubscriptionIndex[str], change: DatabaseEvent) -> list[str]:
    return sorted(delivery.audience.key.topic for delivery in found.match(change))


@pytest.mark.parametrize("live", [False, True])
def test_a_set_that_changes_decides_from_then_on(live: bool) -> None:
    inside = Test("owner", "in", MINE)
    found, shift = of_set(
        {1},
        subscription(rls=inside, live=live),
        subscription(rls=Any_((inside, owner(7))), live=live),
        subscription(rls=All((inside, Test("title", "exact", "a"))), live=live),
        subscription(rls=Not(inside), live=live),
    )
    inserted = {n: event("INSERT", new=row(id=1, owner=n, title="b")) for n in (1, 2, 7)}
    one, other = ["realtime:0", "realtime:1"], ["realtime:3"]
    assert [topics(found, inserted[n]) for n in (1, 2, 7)] == [
        one,
        other,
        ["realtime:1", "realtime:3"],
    ]
    entries = found.entries
    shift({2}, {1})
    assert [topics(found, inserted[n]) for n in (1, 2)] == [other, one]
    shift(set(), {2})
    assert [topics(found, inserted[n]) for n in (1, 2)] == [other, other]
    assert found.entries == entries


_moving = st.recursive(
    st.sampled_from(
        [
            Test("owner", "in", MINE),
            Test("id", "in", MINE),
            Test("owner", "exact", 1),
            Test("owner", "in", frozenset({0, 2})),
            Test("owner", "gt", 0),
            Test("title", "exact", "a"),
            TRUE,
            FALSE,
        ]
    ),
    lambda inner: (
        st.builds(All, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Any_, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=5,
)


@given(
    rls=_moving,
    filter_=_moving,
    sets=st.lists(st.frozensets(st.integers(0, 2)), min_size=1, max_size=4),
)
def test_those_found_for_a_row_are_those_who_may_see_it_whatever_the_set_was_before(
    rls: Predicate, filter_: Predicate, sets: list[frozenset[object]]
) -> None:
    members: set[object] = set()
    found, shift = of_set(members, subscription(rls=rls, filter=filter_))
    for values in sets:
        shift(set(values - members), members - values)
        for number in (None, 0, 1, 2):
            for title in (None, "a"):
                new = row(id=1, owner=number, title=title)
                wants = matcher(All((rls, filter_)), lambda _: values)  # noqa: B023
                assert bool(topics(found, event("INSERT", new=new))) is (wants(new) is True)


def test_a_long_look_is_taken_in_steps_and_finds_the_same() -> None:
    found, _ = manager()
    for number in range(1_000):
        found.set(f"channel {number}", key(subscription(rls=Test("id", "gt", number))))
    change = event("INSERT", new=row(id=900))
    deliveries: list[Delivery[str]] = []
    taken = 0
    for taken, _ in enumerate(found.matching(change, deliveries), start=1):
        found.remove(f"channel {taken}")
    assert len(deliveries) == 900
    assert taken >= 3
    assert len(found.match(change)) == 900 - taken
