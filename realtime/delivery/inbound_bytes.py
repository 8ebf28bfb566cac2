"""Bytes that clients have sent and the application has not dealt with, in the memory of a process.

Pure. A limit for one message bounds a connection only. Here the connections of an address are
bounded together, and those of all addresses. What is small is not counted: it is no more than a
connection costs anyway.
"""

from __future__ import annotations

ADDRESS_BYTES = 16_777_216
TOTAL_BYTES = 67_108_864
#: Up to so many bytes of a connection are not counted.
SMALL_BYTES = 16_384


class InboundBytes:
    """The bytes of all connections, by account: the address, or the connection without one."""

    def __init__(self, each: int = ADDRESS_BYTES, total: int = TOTAL_BYTES) -> None:
        self._each = each
        self._most = total
        self._total = 0
        self._accounts: dict[str, int] = {}

    @property
    def total(self) -> int:
        """The bytes that are counted now."""
        return self._total

    def add(self, account: str, size: int) -> None:
        """Count so many bytes more, or fewer, for this account."""
        self._total += size
        of_account = self._accounts.get(account, 0) + size
        if of_account:
            self._accounts[account] = of_account
        else:
            self._accounts.pop(account, None)

    def allows(self, account: str, own: int) -> bool:
        """Whether one of the account's connections may keep its `own` bytes.

        The only connection of an account may fill it with one message, for which it has a limit.
        Where all accounts together have too much, those with less than their part may keep theirs.
        """
        used = self._accounts.get(account, 0)
        if used > max(self._each, own):
            return False
        return self._total <= self._most or used * len(self._accounts) <= self._most


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
        self._ledger.add(self._account, size - self._size)
        self._size = size
        return not grown or self._ledger.allows(self._account, size)

    def __del__(self) -> None:
        self._ledger.add(self._account, -self._size)


_of_process = InboundBytes()


def holding_of(account: str) -> InboundHolding:
    """A holding that counts for this process."""
    return InboundHolding(_of_process, account)
