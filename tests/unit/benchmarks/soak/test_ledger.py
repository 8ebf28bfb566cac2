"""The accounts of a long run notice what is lost, doubled, out of order, or nobody's to see."""

from __future__ import annotations

from benchmarks.soak.ledger import Account, Change, Ledger, Traits

PUBLIC, PRIVATE = Traits(1, True, 0), Traits(1, False, 0)


def change(number: int) -> Change:
    return Change("INSERT", number, f"w0.{number}")


def witnessed(*traits: Traits, ledger: Ledger | None = None) -> Ledger:
    """Changes with the seqs 11, 12 and so on, written and seen."""
    ledger = ledger or Ledger()
    for seq, each in enumerate(traits, 11):
        ledger.wrote(change(seq), committed=seq * 1_000)
        ledger.saw(seq, change(seq), each)
    return ledger


def reader(*seqs: int, sees_all: bool = True) -> Account:
    account = Account(lambda traits: sees_all or traits.public)
    account.begin(10)
    for seq in seqs:
        account.got(seq, change(seq))
    return account


def test_what_was_written_and_seen_is_accounted_for_in_either_order() -> None:
    ledger = Ledger()
    ledger.wrote(change(1), 5)
    ledger.saw(7, change(1), PUBLIC)
    ledger.saw(8, change(2), PUBLIC)
    assert ledger.unwritten == [change(2)] and ledger.committed(8) is None
    ledger.wrote(change(2), 6)
    assert not ledger.unseen and not ledger.unwritten
    assert [ledger.committed(seq) for seq in (6, 7, 8, 9)] == [None, 5, 6, None]


def test_a_change_that_does_not_arrive_is_lost() -> None:
    ledger = witnessed(PUBLIC)
    ledger.wrote(change(99), 1)
    assert ledger.unseen == [change(99)]


def test_a_change_that_was_rolled_back_or_numbered_twice_was_never_written() -> None:
    ledger = witnessed(PUBLIC)
    ledger.saw(20, change(50), PUBLIC)
    ledger.saw(21, change(11), PUBLIC)
    assert ledger.unwritten == [change(50), change(11)]


def test_a_reader_that_gets_all_it_may_see_has_nothing_to_complain_of() -> None:
    account = reader(11, 13, sees_all=False)
    account.check(witnessed(PUBLIC, PRIVATE, PUBLIC))
    assert (account.received, account.lost, account.doubled) == (2, 0, 0)


def test_a_gap_is_found_once_something_later_has_come() -> None:
    ledger = witnessed(PUBLIC, PUBLIC, PUBLIC)
    account = reader(11)
    account.check(ledger)
    assert account.lost == 0 and account.behind(ledger)
    account.got(13, change(13))
    account.check(ledger)
    assert account.lost == 1 and not account.behind(ledger)
    assert "12" in account.examples[0]


def test_a_gap_at_the_end_is_found_when_the_server_says_that_all_was_sent() -> None:
    account = reader(11)
    account.reached(12)
    account.check(witnessed(PUBLIC, PUBLIC))
    assert account.lost == 1


def test_what_comes_twice_or_out_of_order_is_doubled() -> None:
    account = reader(11, 12, 12, 11)
    account.check(witnessed(PUBLIC, PUBLIC))
    assert (account.lost, account.doubled) == (0, 2)


def test_what_a_reader_may_not_see_must_not_come() -> None:
    account = reader(11, 12, sees_all=False)
    account.check(witnessed(PUBLIC, PRIVATE))
    assert (account.lost, account.doubled) == (0, 1)


def test_another_change_under_the_same_number_is_no_substitute() -> None:
    account = Account(lambda traits: True)
    account.begin(10)
    account.got(11, change(77))
    account.check(witnessed(PUBLIC))
    assert account.lost == 1


def test_nothing_is_said_beyond_what_the_witness_has_seen() -> None:
    ledger = witnessed(PUBLIC)
    account = reader(11, 12)
    account.check(ledger)
    assert (account.lost, account.doubled) == (0, 0)
    ledger.wrote(change(12), 1)
    ledger.saw(12, change(12), PUBLIC)
    account.check(ledger)
    assert (account.lost, account.doubled) == (0, 0)


def test_a_reader_answers_for_nothing_before_its_beginning() -> None:
    account = Account(lambda traits: True)
    account.begin(12)
    account.got(13, change(13))
    account.check(witnessed(PUBLIC, PUBLIC, PUBLIC))
    assert (account.lost, account.doubled) == (0, 0)
