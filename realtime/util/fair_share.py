"""Slots for costly work elsewhere than on the event loop, given first to the payers that have used
least. On one event loop."""

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
    """`slots` pieces of work at a time, and one of each address."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._queue: PayerQueue[asyncio.Future[None]] = PayerQueue()

    @asynccontextmanager
    async def slot(self, payer: Payer) -> AsyncIterator[Slot]:
        """Wait for a slot, which lasts until the end of the block."""
        if self._free > 0 and self._queue.begin(payer):
            self._free -= 1
        else:
            await self._wait(payer)
        slot = Slot()
        try:
            yield slot
        finally:
            self._leave(payer.account, slot.cost)

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
        while self._free > 0 and (taken := self._queue.take()) is not None:
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
        self._grant()
