"""Slots for costly work, given first to the payers that have used least. On one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from realtime.util.payer_queue import Payer, PayerQueue


class Slot:
    """One piece of work that is running."""

    __slots__ = ("cost",)

    def __init__(self) -> None:
        self.cost = 0.0

    def charge(self, cost: float) -> None:
        """Charge this cost to the payer, in any unit that is the same for all payers."""
        self.cost += cost


class FairShare:
    """`slots` pieces of work at a time, and one of each address.

    With `budget`, no work begins while work of that cost was done since other tasks of the event
    loop last ran. That is for work on the loop itself, charged in seconds.
    """

    def __init__(self, slots: int, budget: float | None = None) -> None:
        self._free = slots
        self._budget = budget
        self._queue: PayerQueue[asyncio.Future[None]] = PayerQueue()
        self._spent = 0.0
        self._scheduled = False

    @asynccontextmanager
    async def slot(self, payer: Payer) -> AsyncIterator[Slot]:
        """Wait for a slot, which lasts until the end of the block."""
        if self._open and self._queue.begin(payer):
            self._free -= 1
        else:
            await self._wait(payer)
        slot = Slot()
        try:
            yield slot
        finally:
            self._leave(payer.account, slot.cost)

    @property
    def _open(self) -> bool:
        """Whether work may begin."""
        return self._free > 0 and (self._budget is None or self._spent < self._budget)

    async def _wait(self, payer: Payer) -> None:
        request: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put(payer, request)
        self._grant()
        try:
            await request
        except asyncio.CancelledError:
            if request.done() and not request.cancelled():
                self._leave(payer.account, 0.0)
            else:
                self._queue.withdraw(payer, request)
            raise

    def _grant(self) -> None:
        while self._open and (taken := self._queue.take()) is not None:
            account, request = taken
            if request.done():
                # Cancelled, and not yet withdrawn.
                self._queue.finish(account, 0.0)
            else:
                self._free -= 1
                request.set_result(None)

    def _leave(self, account: str, cost: float) -> None:
        self._free += 1
        self._queue.finish(account, cost)
        if self._budget is not None:
            self._spend(cost)
        self._grant()

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
