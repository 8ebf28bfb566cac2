"""Snapshots of PostgreSQL, what of a long one is kept, and which ids are yet to come."""

from __future__ import annotations

from dataclasses import replace

from realtime.wal.postgresql.visibility import LOWEST, Mark, Visibility, parse


def test_a_snapshot_is_read_with_and_without_the_ids_that_were_drawn() -> None:
    assert parse("10:20:") == Visibility(20, {})
    assert parse("10:20:10,12") == Visibility(20, {10: LOWEST, 12: LOWEST})
    assert parse("10:20:10@500") == Visibility(20, {10: LOWEST}, drawn=500)
    assert parse("10:20:10@500!21") == Visibility(20, {10: LOWEST}, drawn=500, own=21)


def test_what_is_written_is_read_again() -> None:
    running = Visibility(20, {10: 7, 12: 90}, 100, drawn=120)
    for kept in (Visibility(20, {}), running, replace(running, mark=Mark(22, 110))):
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


def test_ids_of_later_transactions_are_above_what_was_drawn_before_the_own_one_began() -> None:
    first = Visibility(20, {}, 90, drawn=100)
    # This sequencer's transaction, 25, got its id when 100 had been drawn.
    second = first.followed_by(parse("20:22:@200!25"))
    # From 22 to 24 there may be some that had begun before.
    assert (second.above, second.limit_of(24), second.limit_of(26)) == (90, 90, 100)
    third = second.followed_by(parse("26:26:@300!31"))
    assert third.above == 100
    assert third.followed_by(parse("40:40:@400")).above == 200


def test_a_snapshot_that_was_only_looked_at_gives_no_limit() -> None:
    """Transactions above all that it names may have drawn ids before it was taken."""
    found = Visibility(20, {}, 90, drawn=100)
    for _ in range(3):
        found = found.followed_by(parse("30:30:@500"))
    assert found.above == 90


def test_a_transaction_that_goes_on_keeps_the_limit_it_was_found_with() -> None:
    found = Visibility(20, {}, 90, Mark(24, 100), drawn=200)
    found = found.followed_by(parse("22:30:22,28@300!31"))
    assert dict(found.running) == {22: 90, 28: 100}
    found = found.followed_by(parse("22:40:22,33@400"))
    assert dict(found.running) == {22: 90, 33: 200}
    assert (found.above, found.lowest) == (200, 90)
    assert found.followed_by(parse("40:40:@500")).lowest == 200


def test_a_sequence_that_went_back_moves_no_limit_back() -> None:
    found = Visibility(20, {}, 100, drawn=5).followed_by(parse("21:21:@6!21"))
    assert found.followed_by(parse("40:40:@9")).above == 100


def test_without_limits_the_same_transactions_are_shown() -> None:
    found = Visibility(20, {10: 7, 12: 90}, 100, Mark(22, 110), drawn=120)
    assert found.unlimited() == Visibility(20, {10: LOWEST, 12: LOWEST})
    # What was drawn before they were dropped gives no limit any more.
    later = found.unlimited().followed_by(parse("20:30:@130!31")).followed_by(parse("40:40:@9!41"))
    assert later.above == LOWEST
    assert later.followed_by(parse("50:50:@10!51")).above == 130
