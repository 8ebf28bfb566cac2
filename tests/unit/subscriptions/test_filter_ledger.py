"""What clients' filters hold: bounded for a connection and for its subject."""

from __future__ import annotations

from auth_rls.predicates.predicate import TRUE, All, Not, Test
from realtime.subscriptions.filter_ledger import (
    Bounds,
    FilterLedger,
    FilterLoad,
    FilterUse,
    Owner,
    load_of,
)

CONNECTION = Bounds("connection", "a connection", FilterLoad(100, 3, 10_000))
ADDRESS = Bounds("address", "an address", FilterLoad(100, 5, 20_000))


def owners(connection: str, address: str = "here") -> list[Owner]:
    return [Owner(connection, CONNECTION), Owner(("address", address), ADDRESS)]


def use(binding: int, key: str | None = None, **load: int) -> FilterUse:
    return FilterUse(binding, key or f"filter {binding}", FilterLoad(**load))


def test_conditions_patterns_and_bytes_of_a_filter_are_counted() -> None:
    assert load_of(TRUE) == FilterLoad()
    one = load_of(Test("a", "exact", 1))
    assert (one.conditions, one.patterns) == (1, 0) and one.bytes > 0
    two = load_of(All((Test("a", "like", "x%"), Not(Test("a", "imatch", "x.*y")))))
    assert (two.conditions, two.patterns) == (2, 2) and two.bytes > 65_536
    listed = load_of(Test("a", "in", frozenset({"x" * 1_000, "y"})))
    assert listed.conditions == 1 and listed.bytes > 1_000
    wild = load_of(Test("a", "like", "a_" * 400))
    assert wild.bytes > 100 * one.bytes


def test_what_is_over_the_bound_of_the_connection_is_refused_and_the_rest_kept() -> None:
    ledger = FilterLedger()
    refused = ledger.charge("channel", owners("c"), [use(n, patterns=1) for n in range(1, 6)])
    assert sorted(refused) == [4, 5]
    assert str(refused[4]) == "too many patterns. Maximum 3 for all filters of a connection"


def test_the_channels_of_a_connection_are_counted_together() -> None:
    ledger = FilterLedger()
    assert not ledger.charge("one", owners("c"), [use(1, patterns=2)])
    assert list(ledger.charge("two", owners("c"), [use(2, patterns=2)])) == [2]
    ledger.release("one")
    assert not ledger.charge("two", owners("c"), [use(2, patterns=2)])


def test_the_connections_of_an_address_are_counted_together() -> None:
    ledger = FilterLedger()
    assert not ledger.charge("one", owners("c1"), [use(1, patterns=3)])
    refused = ledger.charge("two", owners("c2"), [use(2, patterns=3)])
    assert str(refused[2]) == "too many patterns. Maximum 5 for all filters of an address"
    assert not ledger.charge("far", owners("c3", "elsewhere"), [use(3, patterns=3)])
    # What was refused is charged to nobody.
    assert not ledger.charge("small", owners("c2"), [use(4, patterns=2)])


def test_equal_filters_of_one_owner_count_once() -> None:
    ledger = FilterLedger()
    for number in range(20):
        assert not ledger.charge(number, owners(f"c{number}"), [use(1, "same", patterns=3)])
    for number in range(19):
        ledger.release(number)
    assert list(ledger.charge("more", owners("more"), [use(2, patterns=3)])) == [2]
    ledger.release(19)
    assert not ledger.charge("more", owners("more"), [use(2, patterns=3)])


def test_a_binding_on_several_tables_is_refused_whole() -> None:
    ledger = FilterLedger()
    wild = [use(1, "a", patterns=2), use(1, "b", patterns=2)]
    assert list(ledger.charge("one", owners("c"), wild)) == [1]
    assert not ledger.charge("two", owners("c"), [use(2, patterns=3)])


def test_a_holder_that_asks_anew_gives_back_what_it_had() -> None:
    ledger = FilterLedger()
    for number in range(5):
        asked = [use(1, f"filter {number}", patterns=3)]
        assert not ledger.charge("one", owners("c"), asked)


def test_bindings_that_end_are_given_back_alone() -> None:
    ledger = FilterLedger()
    ledger.charge("one", owners("c"), [use(1, patterns=2), use(2, patterns=1)])
    ledger.release("one", [1])
    assert not ledger.charge("two", owners("c"), [use(3, patterns=2)])
    assert list(ledger.charge("more", owners("c"), [use(4, patterns=1)])) == [4]


def test_bytes_are_bounded_in_words() -> None:
    refused = FilterLedger().charge("one", owners("c"), [use(1, bytes=10_001)])
    assert str(refused[1]) == (
        "filters too large. Maximum 10000 bytes for all filters of a connection"
    )


def test_nothing_is_left_of_those_who_have_gone() -> None:
    ledger = FilterLedger()
    ledger.charge("one", owners("c"), [use(1, patterns=2), use(2, bytes=10_001)])
    ledger.charge("two", owners("d"), [])
    ledger.release("one")
    ledger.release("two")
    ledger.release("never there")
    assert len(ledger) == 0
