"""Snapshots of PostgreSQL, what of a long one is kept, and which ids are yet to come."""

from __future__ import annotations

from realtime.wal.postgresql.visibility import LOWEST, Visibility, parse


def test_a_snapshot_is_read_with_and_without_the_ids_that_were_drawn() -> None:
    assert parse("10:20:") == Visibility(20, {})
    assert parse("10:20:10,12") == Visibility(20, {10: LOWEST, 12: LOWEST})
    assert parse("10:20:10,12@500") == Visibility(20, {10: LOWEST, 12: LOWEST}, LOWEST, 500)


def test_what_is_written_is_read_again() -> None:
    for kept in (Visibility(20, {}), Visibility(20, {10: 7, 12: 90}, 100, 120)):
        assert parse(kept.text) == kept


def test_a_snapshot_with_few_running_transactions_stays_as_it_is() -> None:
    found = Visibility(20, {10: 1, 12: 5}, 9)
    assert found.shortened() == found


def test_a_long_snapshot_ends_before_a_running_transaction_and_stays_true() -> None:
    running = dict.fromkeys(range(100, 1000, 3), 50)
    long = Visibility(1001, running, 900)
    short = long.shortened()
    assert len(short.text) < 1_000
    assert short.next in running
    assert list(short.running) == [n for n in running if n < short.next]
    # Transactions that count as later ones now may write ids that were low for them.
    assert short.above == 50


def test_a_transaction_that_goes_on_keeps_the_limit_it_began_with() -> None:
    first = Visibility(20, {}, 90, 100)
    second = first.followed_by(parse("20:30:22,25@200"))
    # What the second snapshot tells of ids was read after it was taken.
    assert second == Visibility(30, {22: 90, 25: 90}, 100, 200)
    third = second.followed_by(parse("22:40:22,33@300"))
    assert third == Visibility(40, {22: 90, 33: 100}, 200, 300)
    assert third.lowest == 90
    assert third.followed_by(parse("40:40:@300")).lowest == 300


def test_a_sequence_that_went_back_moves_no_limit_back() -> None:
    found = Visibility(20, {}, 100, 100).followed_by(parse("30:30:@5"))
    assert (found.above, found.drawn) == (100, 5)
    assert found.followed_by(parse("40:40:@9")).above == 100
