"""What clients have sent and the application has not dealt with is bounded for an address and in
total."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from realtime.delivery.inbound_bytes import SMALL_BYTES, InboundBytes, InboundHolding, weakly

LARGE = 10 * SMALL_BYTES


def test_the_connections_of_an_address_are_bounded_together() -> None:
    ledger = InboundBytes(each=2 * LARGE, total=100 * LARGE)
    first, second, third = (InboundHolding(ledger, "a") for _ in range(3))
    assert first.set(LARGE) and second.set(LARGE)
    assert not third.set(LARGE)
    assert InboundHolding(ledger, "b").set(LARGE)


def test_a_connection_that_is_alone_may_hold_one_message_of_any_size() -> None:
    ledger = InboundBytes(each=LARGE, total=100 * LARGE)
    assert InboundHolding(ledger, "a").set(50 * LARGE)


def test_in_total_those_give_up_theirs_that_have_more_than_their_part() -> None:
    ledger = InboundBytes(each=100 * LARGE, total=4 * LARGE)
    greedy, modest = InboundHolding(ledger, "greedy"), InboundHolding(ledger, "modest")
    assert greedy.set(4 * LARGE)
    assert modest.set(LARGE)
    assert not greedy.set(5 * LARGE)


def test_what_is_given_back_is_there_for_others() -> None:
    ledger = InboundBytes(each=2 * LARGE, total=100 * LARGE)
    first, second = InboundHolding(ledger, "a"), InboundHolding(ledger, "a")
    assert first.set(2 * LARGE) and not second.set(LARGE + 1)
    # A connection that gives up some of its bytes is not asked for the others.
    assert first.set(2 * LARGE - SMALL_BYTES)
    assert first.set(0) and second.set(2 * LARGE)
    del first, second
    assert ledger.total == 0


def test_what_is_small_is_not_counted() -> None:
    ledger = InboundBytes(each=0, total=0)
    assert InboundHolding(ledger, "a").set(SMALL_BYTES)
    assert ledger.total == 0


def test_a_ledger_may_count_larger_connections_alone() -> None:
    ledger = InboundBytes(each=0, total=0, small=LARGE)
    assert InboundHolding(ledger, "a").set(LARGE)
    assert ledger.total == 0
    holding = InboundHolding(ledger, "a")
    holding.set(LARGE + 1)
    assert ledger.total == LARGE + 1


def test_those_who_hold_much_close_nobody_of_their_address_who_holds_little() -> None:
    ledger = InboundBytes()
    hogs = [InboundHolding(ledger, "a") for _ in range(16)]
    assert all(hog.set(1_048_575) for hog in hogs)
    assert InboundHolding(ledger, "a").set(20_000)
    # One more of them does not pass.
    assert not InboundHolding(ledger, "a").set(1_048_575)


def test_nor_does_an_address_that_fills_the_total() -> None:
    ledger = InboundBytes(each=3 * LARGE, total=3 * LARGE)
    hogs = [InboundHolding(ledger, "a") for _ in range(3)]
    assert all(hog.set(LARGE) for hog in hogs)
    assert InboundHolding(ledger, "b").set(LARGE)
    assert InboundHolding(ledger, "a").set(LARGE // 2)
    assert not InboundHolding(ledger, "a").set(LARGE)


class Client:
    """A connection that is closed where others need room."""

    def __init__(self, ledger: InboundBytes, account: str) -> None:
        self.closed = False
        self.holding = InboundHolding(ledger, account, weakly(self, Client.close))

    def close(self) -> None:
        self.closed = True

    def has(self, size: int) -> None:
        if not self.closed and not self.holding.set(size):
            self.close()
            self.holding.set(0)


@given(
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 5 * LARGE)), max_size=200),
    st.integers(1, 20),
)
def test_the_largest_give_way_to_those_who_come_later_until_the_limits_are_kept(
    steps: list[tuple[int, int]], addresses: int
) -> None:
    each, total = 6 * LARGE, 9 * LARGE
    ledger = InboundBytes(each=each, total=total)
    clients = [Client(ledger, str(number % addresses)) for number in range(40)]
    for number, size in steps:
        clients[number].has(size)
        held = [client.holding.size for client in clients]
        assert all(sum(held[first::addresses]) <= each for first in range(addresses))
        # Where every address has one holding, each may be one message.
        assert ledger.total == sum(held) <= max(total, addresses * 5 * LARGE)


def test_a_hundred_connections_of_an_address_have_together_what_one_may_have() -> None:
    ledger = InboundBytes(each=100 * LARGE, total=1_000 * LARGE)
    other = Client(ledger, "b")
    other.has(LARGE)
    hogs = [Client(ledger, "a") for _ in range(1_000)]
    for count, hog in enumerate(hogs, 1):
        hog.has(100 * LARGE // count)
    assert ledger.total <= 101 * LARGE
    modest = Client(ledger, "a")
    modest.has(SMALL_BYTES + 1)
    assert not modest.closed and not other.closed


def harmonic(count: int) -> float:
    return sum(1 / number for number in range(1, count + 1))


EACH, TOTAL, MOST = 4 * LARGE, 6 * LARGE, 5 * LARGE
STEPS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, MOST)), max_size=200)


@given(STEPS, st.integers(1, 20))
def test_the_bounds_hold_if_what_is_refused_is_given_up(
    steps: list[tuple[int, int]], addresses: int
) -> None:
    ledger = InboundBytes(each=EACH, total=TOTAL)
    holdings = [InboundHolding(ledger, str(number % addresses)) for number in range(20)]
    for number, size in steps:
        if not holdings[number].set(size):
            holdings[number].set(0)
        assert ledger.total <= TOTAL * (1 + harmonic(addresses) + harmonic(20))
        if addresses == 1:
            assert ledger.total <= MOST + EACH * harmonic(20)
    del holdings
    assert ledger.total == 0


@given(STEPS, st.integers(1, 20))
def test_a_holder_of_no_more_than_its_equal_part_is_never_refused(
    steps: list[tuple[int, int]], addresses: int
) -> None:
    ledger = InboundBytes(each=EACH, total=TOTAL)
    holdings = [InboundHolding(ledger, str(number % addresses)) for number in range(20)]
    sizes = [0] * 20
    for number, size in steps:
        kept = holdings[number].set(size)
        sizes[number] = size if size > SMALL_BYTES else 0
        holding = sum(map(bool, sizes))
        of_address = sum(map(bool, sizes[number % addresses :: addresses]))
        assert kept or size * of_address > EACH or size * holding > TOTAL
        if not kept:
            holdings[number].set(0)
            sizes[number] = 0
