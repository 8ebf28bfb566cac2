"""Bytes that clients have sent and the application has not dealt with, in the memory of a process.

Pure. A limit for one message bounds a connection only. Here the connections of an address are
bounded together, and those of all addresses. What is small is not counted: it is no more than a
connection costs anyway.

No connection is refused that holds no more than its equal part of a limit, so that one client
cannot close another one's connection by what it holds itself. What was allowed is not taken back
while others come. So a limit may be exceeded: of n holdings the last has 1/n of it, those before
it 1/(n-1), 1/(n-2) and so on, which is together the limit times ln(n). Holdings are more than
`SMALL_BYTES`, and so there are at most `limit / SMALL_BYTES` of them beyond it.
"""

from __future__ import annotations

from typing import NamedTuple

ADDRESS_BYTES = 16_777_216
TOTAL_BYTES = 67_108_864
#: Up to so many bytes of a connection are not counted.
SMALL_BYTES = 16_384


class _Account(NamedTuple):
    size: int = 0
    # The connections that hold something.
    holdings: int = 0


_EMPTY = _Account()


class InboundBytes:
    """The bytes of all connections, by account: the address, or the connection without one."""

    def __init__(self, each: int = ADDRESS_BYTES, total: int = TOTAL_BYTES) -> None:
        self._each = each
        self._most = total
        self._total = self._holdings = 0
        self._accounts: dict[str, _Account] = {}

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
    """What one connection has in memory. It counts until the object is gone."""

    __slots__ = ("_account", "_ledger", "_size")

    def __init__(self, ledger: InboundBytes, account: str) -> None:
        self._ledger = ledger
        self._account = account
        self._size = 0

    def set(self, size: int) -> bool:
        """The connection has so many bytes now. False if it has to give them up: they are more than
        before, and too many."""
        size = size if size > SMALL_BYTES else 0
        if size == self._size:
            return True
        grown = size > self._size
        self._ledger.change(self._account, self._size, size)
        self._size = size
        return not grown or self._ledger.allows(self._account, size)

    def __del__(self) -> None:
        self._ledger.change(self._account, self._size, 0)


_of_process = InboundBytes()


def holding_of(account: str) -> InboundHolding:
    """A holding that counts for this process."""
    return InboundHolding(_of_process, account)
