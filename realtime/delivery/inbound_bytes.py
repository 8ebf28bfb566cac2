"""Bytes that clients have sent and that stay in the memory of a process: messages that the
application has not dealt with, and joins with what waits for them.

Pure. A limit for one message bounds a connection only. Here the connections of an address are
bounded together, and those of all addresses. What is small is not counted: it is no more than a
connection costs anyway.

No connection is refused that holds no more than its equal part of a limit, so that one client
cannot close another one's connection by what it holds itself. Those who come later make the part of
each smaller: then the largest holding gives way, which has more than its part, and so on until the
limit is kept.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import NamedTuple, TypeVar

T = TypeVar("T")

ADDRESS_BYTES = 16_777_216
TOTAL_BYTES = 67_108_864
#: Up to so many bytes of a connection are not counted.
SMALL_BYTES = 16_384
#: The same of joins. A page has ten to fifteen of them, each with a token of a kilobyte or more,
#: for as long as it is open; and behind a proxy all pages may have one address.
SMALL_JOIN_BYTES = 65_536


class _Account(NamedTuple):
    size: int = 0
    # The connections that hold something.
    holdings: int = 0


_EMPTY = _Account()


class InboundBytes:
    """The bytes of all connections, by account: the address, or the connection without one.

    An account may have `each` bytes, all accounts `total`. A connection with at most `small` does
    not count.
    """

    def __init__(
        self, each: int = ADDRESS_BYTES, total: int = TOTAL_BYTES, small: int = SMALL_BYTES
    ) -> None:
        #: Up to so many bytes of a connection are not counted.
        self.small = small
        self._each = each
        self._most = total
        self._total = self._holdings = 0
        self._accounts: dict[str, _Account] = {}
        # The holdings that can give way.
        self._yielding: dict[str, weakref.WeakSet[InboundHolding]] = {}

    @property
    def total(self) -> int:
        """The bytes that are counted now."""
        return self._total

    def change(self, account: str, before: int, after: int) -> None:
        """One of the account's connections holds `after` bytes instead of `before`."""
        bytes_more, holdings_more = after - before, bool(after) - bool(before)
        self._total += bytes_more
        self._holdings += holdings_more
        found = self._accounts.get(account, _EMPTY)
        found = _Account(found.size + bytes_more, found.holdings + holdings_more)
        if found.holdings:
            self._accounts[account] = found
        else:
            self._accounts.pop(account, None)
            self._yielding.pop(account, None)

    def may_yield(self, account: str, holding: InboundHolding) -> None:
        """This holding of the account holds something, and can give way."""
        self._yielding.setdefault(account, weakref.WeakSet()).add(holding)

    def relieve(self, account: str) -> None:
        """Let the largest holdings give way until the account and the total are within their
        limits, or nothing is left that can."""
        while self._accounts.get(account, _EMPTY).size > self._each:
            if not self._largest_gives_way(account):
                break
        while self._total > self._most:
            largest = max(self._accounts, key=lambda name: self._accounts[name].size)
            if not self._largest_gives_way(largest):
                break

    def _largest_gives_way(self, account: str) -> bool:
        holdings = [each for each in self._yielding.get(account, ()) if each.size]
        # The only holding of an account may fill it.
        if len(holdings) < 2:
            return False
        max(holdings, key=lambda each: each.size).give_way()
        return True

    def allows(self, account: str, own: int) -> bool:
        """Whether one of the account's connections may keep its `own` bytes.

        The only connection of an account may fill it with one message, for which it has a limit.
        Where the connections of an account have too much, those with no more than their part may
        keep theirs. Where all accounts together have too much, so may the accounts with no more
        than their part of the total, and the connections.
        """
        used, holdings = self._accounts.get(account, _EMPTY)
        if used > max(self._each, own) and own * holdings > self._each:
            return False
        return (
            self._total <= self._most
            or used * len(self._accounts) <= self._most
            or own * self._holdings <= self._most
        )


class InboundHolding:
    """What one connection has in memory. It counts until the object is gone. `give_way`, if given,
    closes the connection and forgets what it has; it must not refer to the object."""

    __slots__ = ("__weakref__", "_account", "_give_way", "_ledger", "size")

    def __init__(
        self, ledger: InboundBytes, account: str, give_way: Callable[[], None] | None = None
    ) -> None:
        self._ledger = ledger
        self._account = account
        self._give_way = give_way
        #: The bytes that count.
        self.size = 0

    def set(self, size: int) -> bool:
        """The connection has so many bytes now. False if it has to give them up: they are more than
        before, and too many. Others may have to give way to it."""
        size = size if size > self._ledger.small else 0
        if size == self.size:
            return True
        grown = size > self.size
        self._count(size)
        if not grown:
            return True
        if not self._ledger.allows(self._account, size):
            return False
        if self._give_way is not None:
            self._ledger.may_yield(self._account, self)
        self._ledger.relieve(self._account)
        return self.size == size

    def give_way(self) -> None:
        """Close the connection for others, and count nothing of it."""
        self._count(0)
        if self._give_way is not None:
            self._give_way()

    def _count(self, size: int) -> None:
        before, self.size = self.size, size
        self._ledger.change(self._account, before, size)

    def __del__(self) -> None:
        self._ledger.change(self._account, self.size, 0)


def weakly(owner: T, close: Callable[[T], object]) -> Callable[[], None]:
    """A function that calls `close` with an owner that it does not keep alive."""
    here = weakref.ref(owner)

    def call() -> None:
        found = here()
        if found is not None:
            close(found)

    return call


_of_process = InboundBytes()
_joins = InboundBytes(2 * ADDRESS_BYTES, 2 * TOTAL_BYTES, SMALL_JOIN_BYTES)


def holding_of(account: str, give_way: Callable[[], None]) -> InboundHolding:
    """A holding that counts for this process."""
    return InboundHolding(_of_process, account, give_way)


def join_holding_of(account: str, give_way: Callable[[], None]) -> InboundHolding:
    """As `holding_of`, for the joins of a connection's channels, which stay as long as these, and
    for the messages that wait for them."""
    return InboundHolding(_joins, account, give_way)
