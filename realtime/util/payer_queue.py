"""Requests of payers: the next one is that of the payer that has used least.

Pure. Work is charged when it is done. Many requests of one payer delay only that payer, and a payer
that comes and goes is served no more than one that waits all the time.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from realtime.util.fair_queue import FairQueue

T = TypeVar("T")

# Accounts without work that are remembered.
_MOST_IDLE = 10_000


@dataclass(frozen=True, slots=True)
class Payer:
    """The cause of work: an address, and a user or connection behind it. Users of one address share
    what the address gets; without an address (behind a Unix socket) each name has its own share."""

    address: str = ""
    name: str = ""

    @property
    def account(self) -> str:
        """The account of the payer: its address, or its name if it has none."""
        return self.address or self.name


NOBODY = Payer()


class _Account(Generic[T]):
    """One account: what it has used, and its requests, served in rotation of their names."""

    __slots__ = ("idle", "key", "listed", "requests", "running", "used")

    def __init__(self, key: str, used: float) -> None:
        self.key = key
        self.used = used
        self.requests: FairQueue[T] = FairQueue()
        self.running = False
        # Whether the account is in the heap of those that wait, and in that of the idle ones.
        self.listed = False
        self.idle = False


class PayerQueue(Generic[T]):
    """Accounts by what they have used. Each has at most one piece of work running.

    `most_idle` accounts without work are remembered. Beyond it, those that have used least are
    forgotten first.
    """

    def __init__(self, most_idle: int = _MOST_IDLE) -> None:
        self._most_idle = most_idle
        self._accounts: dict[str, _Account[T]] = {}
        self._numbers = count()
        # By what the accounts have used, each account at most once. `used` changes only while work
        # of the account runs, and then it is not listed.
        self._waiting: list[tuple[float, int, _Account[T]]] = []
        self._idle: list[tuple[float, int, _Account[T]]] = []
        self._running = 0
        # A new account begins with as much, so that it does not overtake the others for long.
        self._level = 0.0

    def __len__(self) -> int:
        """The number of accounts that are remembered."""
        return len(self._accounts)

    @property
    def waiting(self) -> bool:
        """Whether an account with requests waits. One whose work runs does not."""
        return bool(self._waiting)

    def begin(self, payer: Payer) -> bool:
        """Begin work of this payer at once; `finish` ends it. False if others come first or work of
        its account runs: then a request has to be put."""
        if self._waiting:
            return False
        account = self._account_of(payer)
        if account.running:
            return False
        self._run(account)
        return True

    def put(self, payer: Payer, request: T) -> None:
        """Add a request, to be returned by `take`."""
        account = self._account_of(payer)
        account.requests.put(payer.name, request)
        if not account.running:
            self._list(account)

    def take(self) -> tuple[str, T] | None:
        """Begin the work of the next request; `finish` ends it. Gives the name of its account and
        the request; None if no account waits."""
        while self._waiting:
            account = heapq.heappop(self._waiting)[2]
            account.listed = False
            if account.requests:
                self._run(account)
                return account.key, account.requests.pop()
            # What it waited for was withdrawn.
            self._rest(account)
        return None

    def finish(self, key: str, cost: float) -> None:
        """End the work that runs for the account of this name, and charge its cost, in any unit
        that is the same for all. Raises KeyError if there is no such account."""
        account = self._accounts[key]
        # What each account would have used by now if all those with work had equal shares. Without
        # it, new accounts without end would all come before one that has used a little.
        self._level += cost / (len(self._waiting) + self._running)
        self._running -= 1
        account.running = False
        account.used += cost
        if account.requests:
            self._list(account)
        else:
            self._rest(account)

    def withdraw(self, payer: Payer, request: T) -> None:
        """Remove a request, if it is still there."""
        account = self._accounts.get(payer.account)
        if account is not None:
            account.requests.discard(payer.name, request)

    def _account_of(self, payer: Payer) -> _Account[T]:
        key = payer.account
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(key, self._level)
        return account

    def _list(self, account: _Account[T]) -> None:
        if not account.listed:
            account.listed = True
            heapq.heappush(self._waiting, (account.used, next(self._numbers), account))

    def _run(self, account: _Account[T]) -> None:
        account.running = True
        self._running += 1
        if account.used > self._level:
            self._level = account.used
        if self._idle:
            self._forget()

    def _rest(self, account: _Account[T]) -> None:
        """An account has no work for now."""
        if not account.idle:
            account.idle = True
            heapq.heappush(self._idle, (account.used, next(self._numbers), account))

    def _forget(self) -> None:
        """Forget accounts without work once a new account would begin with as much as they have
        used: forgotten earlier, they would come back with less."""
        idle = self._idle
        while idle and (idle[0][0] <= self._level or len(idle) > self._most_idle):
            account = heapq.heappop(idle)[2]
            account.idle = False
            if not account.running and not account.listed:
                del self._accounts[account.key]
