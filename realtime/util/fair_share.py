"""Slots for costly work, given first to the payers that have used least.

A payer is the cause of the work: an address, and a user or connection behind it. Work is charged
when it is done. A payer that asks for much waits for itself: another one comes next, however many
requests were there before. On one event loop.
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
    """Where work comes from. Users of one address share what the address gets; without an address
    (behind a Unix socket) each name is by itself."""

    address: str = ""
    name: str = ""

    @property
    def account(self) -> str:
        """What is charged first."""
        return self.address or self.name


NOBODY = Payer()


class Slot:
    """One piece of work that runs."""

    __slots__ = ("cost",)

    def __init__(self) -> None:
        self.cost = 0.0

    def charge(self, cost: float) -> None:
        """The work has cost this much more, in any unit that is the same for all payers."""
        self.cost += cost


class _Account:
    """One address: what it has used, and its requests by name."""

    __slots__ = ("names", "running", "used")

    def __init__(self, used: float) -> None:
        self.used = used
        self.running = 0
        self.names: dict[str, deque[asyncio.Future[None]]] = {}

    def next(self) -> asyncio.Future[None]:
        """The next request, of each name in turn."""
        name = next(iter(self.names))
        requests = self.names.pop(name)
        request = requests.popleft()
        if requests:
            self.names[name] = requests
        return request


class FairShare:
    """`slots` pieces of work at a time, of one address at most `each`.

    With `budget`, no work begins when work of that cost was done since other tasks of the event
    loop last ran. It is meant for work on the loop itself, charged in seconds.
    """

    def __init__(self, slots: int, each: int, budget: float | None = None) -> None:
        self._free = slots
        self._each = each
        self._budget = budget
        self._accounts: dict[str, _Account] = {}
        # Accounts that may get a slot, by what they have used. Entries may be out of date.
        self._next: list[tuple[float, int, str]] = []
        self._numbers = count()
        # What the account that got a slot last had used: a new account has missed nothing.
        self._level = 0.0
        self._spent = 0.0
        self._turning = False

    @asynccontextmanager
    async def slot(self, payer: Payer) -> AsyncIterator[Slot]:
        """A slot for the time of the block."""
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

    def _leave(self, name: str, account: _Account, cost: float) -> None:
        self._free += 1
        account.running -= 1
        account.used += cost
        if self._budget is not None:
            self._spend(cost)
        if account.names:
            self._enlist(name, account)
        elif not account.running:
            self._accounts.pop(name, None)
        self._grant()

    def _forget(self, name: str, account: _Account, of: str, request: asyncio.Future[None]) -> None:
        requests = account.names.get(of, deque())
        # It is gone already where a slot came free after it was cancelled.
        if request in requests:
            requests.remove(request)
            if not requests:
                del account.names[of]
        if not account.names and not account.running:
            self._accounts.pop(name, None)

    def _enlist(self, name: str, account: _Account) -> None:
        heapq.heappush(self._next, (account.used, next(self._numbers), name))

    def _grant(self) -> None:
        while self._next and self._free and not self._exhausted:
            used, _, name = heapq.heappop(self._next)
            account = self._accounts.get(name)
            # Out of date, or at its bound: it is listed again when a slot of it is free.
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
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._begin_iteration)

    def _begin_iteration(self) -> None:
        """Other tasks have run."""
        self._turning = False
        self._spent = 0.0
        self._grant()
