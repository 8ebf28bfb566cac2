"""Quotas: what connections share, so that reconnecting earns nothing."""

from __future__ import annotations

from typing import Any

import pytest

from realtime.client_limits import Limits
from realtime.session.quotas import ADDRESS, SUBJECT, Quota, QuotaChain, Quotas, Rates


def rates(**limits: Any) -> Rates:
    given = {
        "joins_per_second": 2,
        "channels_per_connection": 10,
        "broadcasts_per_second": 1,
        "broadcast_burst": 5,
        "presence_per_30_seconds": 3,
        "payload_bytes": 100,
        "frame_bytes": 1_000,
    }
    return Rates.of(Limits(**{**given, **limits}))


def joins(chain: QuotaChain, now: float, attempts: int = 10_000) -> int:
    """How many joins are granted before one is not."""
    return next(n for n in range(attempts) if chain.join(now))


def test_something_is_taken_from_all_buckets_or_from_none() -> None:
    rich, poor = (Quota(rates(broadcast_burst=burst)) for burst in (5, 2))
    both = QuotaChain(rich, poor)
    assert [both.broadcast(0.0) for _ in range(4)] == ["", "", "connection", "connection"]
    assert sum(not QuotaChain(rich).broadcast(0.0) for _ in range(9)) == 3


def test_a_connection_alone_meets_its_own_limit_and_not_its_address_s() -> None:
    quotas = Quotas(rates())
    chain = QuotaChain(Quota(rates()), quotas.address("192.0.2.1", 0.0))
    assert joins(chain, 0.0) == 2
    assert chain.join(0.0) == "connection"


def test_a_client_that_reconnects_finds_its_address_s_bucket_as_it_left_it() -> None:
    quotas = Quotas(rates())
    granted = 0
    for _ in range(1_000):
        chain = QuotaChain(Quota(rates()), quotas.address("192.0.2.1", 0.0))
        granted += joins(chain, 0.0)
    assert granted == 2 * ADDRESS.joins.burst
    assert chain.join(0.0) == "address"
    assert joins(QuotaChain(Quota(rates()), quotas.address("192.0.2.1", 1.0)), 1.0) == 2


def test_four_hundred_people_behind_one_address_may_all_come_back_at_once() -> None:
    quotas = Quotas(rates())
    for _ in range(400):
        assert joins(QuotaChain(Quota(rates()), quotas.address("192.0.2.1", 0.0)), 0.0) == 2


def test_another_address_is_not_concerned() -> None:
    quotas = Quotas(rates())
    while not QuotaChain(quotas.address("192.0.2.1", 0.0)).join(0.0):
        pass
    assert not QuotaChain(quotas.address("192.0.2.2", 0.0)).join(0.0)
    assert not QuotaChain(quotas.subject("192.0.2.1", 0.0)).join(0.0)


def test_a_key_with_nothing_to_remember_is_forgotten() -> None:
    quotas = Quotas(rates())
    for number in range(100):
        QuotaChain(quotas.address(f"192.0.2.{number}", 0.0)).join(0.0)
    assert len(quotas) == 100
    for number in range(60):
        quotas.address("198.51.100.1", 1_000.0 + number)
    assert len(quotas) == 1


def test_a_quota_is_not_forgotten_between_asking_and_taking() -> None:
    quotas = Quotas(rates())
    granted = 0
    for second in range(50):
        now = second / 100
        # As a request does, which is over after it has taken.
        chain = QuotaChain(quotas.address("192.0.2.1", now), quotas.subject("a", now))
        quotas.address("198.51.100.1", now)
        granted += joins(chain, now)
        del chain
    assert granted <= SUBJECT.joins.burst * 2 + 10


def test_there_are_never_more_keys_than_the_bound_and_the_oldest_goes_first() -> None:
    quotas = Quotas(rates(), most=3)
    for number in range(50):
        QuotaChain(quotas.address(f"192.0.2.{number}", 0.0)).join(0.0)
        assert len(quotas) <= 3
    kept = quotas.address("192.0.2.49", 0.0)
    assert not kept.full(0.0)


def test_what_a_connection_holds_does_not_meet_a_second_one_of_its_key() -> None:
    quotas = Quotas(rates(), most=2)
    held = quotas.address("192.0.2.1", 0.0)
    for number in range(10):
        QuotaChain(quotas.address(f"198.51.100.{number}", 0.0)).join(0.0)
    assert quotas.address("192.0.2.1", 0.0) is held


def test_a_client_may_renew_all_its_channels_at_once() -> None:
    chain = QuotaChain(Quota(rates(channels_per_connection=100)))
    assert all(not chain.renew(0.0) for _ in range(100))


@pytest.mark.parametrize("limit", ["joins_per_second", "broadcasts_per_second"])
def test_where_a_limit_is_off_what_follows_from_it_is_off_too(limit: str) -> None:
    chain = QuotaChain(
        Quota(rates(**{limit: None})), Quotas(rates(**{limit: None})).address("a", 0.0)
    )
    assert all(not chain.message(0.0) for _ in range(10_000))
    assert all(not chain.data(0.0, 1_000) for _ in range(10_000))


def test_a_frame_of_the_largest_size_is_always_within_the_bytes() -> None:
    assert not QuotaChain(Quota(rates(frame_bytes=10_000_000))).data(0.0, 10_000_000)


def tracked(chain: QuotaChain, now: float, size: int) -> int:
    """How many tracks of this size are granted at once."""
    return next(n for n in range(1_000_000) if chain.presence_data(now, size))


def test_what_presence_writes_is_bounded_per_connection_subject_and_address() -> None:
    limits = Rates.of(Limits())
    quotas = Quotas(limits)

    def connection(now: float) -> QuotaChain:
        return QuotaChain(Quota(limits), quotas.subject("a", now), quotas.address("192.0.2.1", now))

    # Every channel of a connection may track the largest meta once, and later one each second.
    one = connection(0.0)
    assert tracked(one, 0.0, 4_096) == 100
    assert one.presence_data(0.0, 4_096) == "connection"
    assert tracked(one, 10.0, 4_096) == 10
    # Further connections of the subject are worth a few of them.
    assert sum(tracked(connection(10.0), 10.0, 4_096) for _ in range(100)) <= 310
    # An hour of a hostile address: what its burst and its rate allow, however many connect.
    begin = 20.0
    address = quotas.address("198.51.100.1", begin)
    written = sum(
        tracked(QuotaChain(Quota(limits), address), begin + second, 4_096) * 4_096
        for second in range(3_600)
    )
    assert written < 200_000_000


def test_without_a_limit_presence_writes_what_it_likes() -> None:
    for given in ({"presence_meta_bytes": None}, {"presence_per_30_seconds": None}):
        chain = QuotaChain(Quota(Rates.of(Limits(**given))))
        assert not any(chain.presence_data(0.0, 1_000_000) for _ in range(100))
