"""Slots for costly work, given first to the payers that have used least.

A payer is the cause of work: an address, and a user or connection behind it. Work is charged when
it is done. Many requests of one payer delay only that payer: another one comes next, however many
requests came before. On one event loop.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True)
class Payer:
    """The cause of work. Users of one address share what the address gets; without an address
    (behind a Unix socket) each name has its own share."""

    address: str = ""
    name: str = ""

    @property
    def account(self) -> str:
        """The account of the payer: its address, or its name if it has none."""
        return self.address or self.name


NOBODY = Payer()

# Accounts without work that are remembered.
_MOST_IDLE = 10_000


class Slot:
    """One piece of work that is running."""

    __slots__ = ("cost",)

    def __init__(self) -> None:
        self.cost = 0.0

    def charge(self, cost: float) -> None:
        """Charge this cost to the payer, in any unit that is the same for all payers."""
        self.cost += cost


class _Account:
    """One account: what it has used, and its requests by name."""

    __slots__ = ("names", "running", "used")

    def __init__(self, used: float) -> None:
        self.used = used
        self.running = 0
        self.names: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def busy(self) -> bool:
        """Whether work of the account runs or waits."""
        return bool(self.running or self.names)

    def next(self) -> asyncio.Future[None]:
        """The next request; names are served in rotation."""
        name = next(iter(self.names))
        requests = self.names.pop(name)
        request = requests.popleft()
        if requests:
            self.names[name] = requests
        return request


class FairShare:
    """`slots` pieces of work at a time, of one address at most `each`.

    With `budget`, no work begins while work of that cost was done since other tasks of the event
    loop last ran. That is for work on the loop itself, charged in seconds.
    """

    def __init__(self, slots: int, each: int, budget: float | None = None) -> None:
        self._free = slots
        self._each = each
        self._budget = budget
        self._accounts: dict[str, _Account] = {}
        # Accounts that may get a slot, by what they have used. Entries may be outdated.
        self._next: list[tuple[float, int, str]] = []
        self._numbers = count()
        # Accounts without work, by what they have used. Entries may be outdated.
        self._idle: list[tuple[float, str]] = []
        # What the last account with a slot had used. A new account begins with as much, so that it
        # does not overtake the others for long.
        self._level = 0.0
        self._spent = 0.0
        self._scheduled = False

    @asynccontextmanager
    async def slot(self, payer: Payer) -> AsyncIterator[Slot]:
        """Wait for a slot, which lasts until the end of the block."""
        name = payer.account
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account(self._level)
        if self._free and not self._exhausted and not self._next and account.running < self._each:
            self._take(account)
        else:
            await self._wait(name, account, payer.name)
        slot = Slot()
        try:
            yield slot
        finally:
            self._leave(name, account, slot.cost)

    async def _wait(self, name: str, account: _Account, of: str) -> None:
        request: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        account.names.setdefault(of, deque()).append(request)
        self._enlist(name, account)
        self._grant()
        try:
            await request
        except asyncio.CancelledError:
            if request.done() and not request.cancelled():
                self._leave(name, account, 0.0)
            else:
                self._forget(name, account, of, request)
            raise

    def _take(self, account: _Account) -> None:
        self._free -= 1
        account.running += 1
        self._level = max(self._level, account.used)
        while self._idle and (self._idle[0][0] <= self._level or len(self._idle) > _MOST_IDLE):
            used, name = heapq.heappop(self._idle)
            idle = self._accounts.get(name)
            if idle is not None and idle.used == used and not idle.busy:
                del self._accounts[name]

    def _rest(self, name: str, account: _Account) -> None:
        """An account has no work for now. It is forgotten once a new account would begin with as
        much as it has used: forgotten earlier, it would come back with less."""
        if account.used > self._level:
            heapq.heappush(self._idle, (account.used, name))
        else:
            self._accounts.pop(name, None)

    def _leave(self, name: str, account: _Account, cost: float) -> None:
        self._free += 1
        account.running -= 1
        account.used += cost
        if self._budget is not None:
            self._spend(cost)
        if account.names:
            self._enlist(name, account)
        elif not account.running:
            self._rest(name, account)
        self._grant()

    def _forget(self, name: str, account: _Account, of: str, request: asyncio.Future[None]) -> None:
        requests = account.names.get(of, deque())
        # The request may be gone: a slot came free after it was cancelled.
        if request in requests:
            requests.remove(request)
            if not requests:
                del account.names[of]
        if not account.busy:
            self._rest(name, account)

    def _enlist(self, name: str, account: _Account) -> None:
        heapq.heappush(self._next, (account.used, next(self._numbers), name))

    def _grant(self) -> None:
        while self._next and self._free and not self._exhausted:
            used, _, name = heapq.heappop(self._next)
            account = self._accounts.get(name)
            # Outdated, or the account is at its bound and is listed again when one of its slots is
            # free.
            if account is None or not account.names or account.used != used:
                continue
            if account.running >= self._each:
                continue
            request = account.next()
            if account.names:
                self._enlist(name, account)
            if not request.done():
                self._take(account)
                request.set_result(None)

    # --- the budget of the loop -----------------------------------------------------------------

    @property
    def _exhausted(self) -> bool:
        return self._budget is not None and self._spent >= self._budget

    def _spend(self, cost: float) -> None:
        self._spent += cost
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_iteration)

    def _begin_iteration(self) -> None:
        """Begin a new budget: other tasks have run."""
        self._scheduled = False
        self._spent = 0.0
        self._grant()
