"""Work on the event loop for many payers: a time slice in each iteration, in fair order.

Other tasks run between two slices, however much work waits. Within a slice the payers that have
used least come first, and each piece of work runs to its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from realtime.util.payer_queue import Payer, PayerQueue
from realtime.util.time_slice import SLICE_SECONDS

T = TypeVar("T")


class _Request(Generic[T]):
    """Work that waits, and the future of its result."""

    __slots__ = ("result", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def run(self) -> None:
        try:
            done = self.work()
        except Exception as error:
            self.result.set_exception(error)
        else:
            self.result.set_result(done)


class LoopShare:
    """Work for about `seconds` in an iteration of the loop, measured by `clock`. A single piece of
    work is not interrupted, so each should take less."""

    def __init__(
        self, seconds: float = SLICE_SECONDS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._queue: PayerQueue[_Request[Any]] = PayerQueue()
        # Seconds of work since other tasks last ran.
        self._spent = 0.0
        self._scheduled = False

    async def run(self, payer: Payer, work: Callable[[], T]) -> T:
        """The result of `work`, which is called at once or in a later slice and does not await.
        Raises what it raises. It is not called any more once the caller is cancelled."""
        if self._spent < self._seconds and self._queue.begin(payer):
            began = self._clock()
            try:
                return work()
            finally:
                self._charge(payer.account, self._clock() - began)
        request = _Request(work)
        self._queue.put(payer, request)
        self._schedule()
        try:
            return await request.result
        except asyncio.CancelledError:
            self._queue.withdraw(payer, request)
            if not request.result.cancelled():
                # Done in the same iteration. asyncio would log an error that nobody asks for.
                request.result.exception()
            raise

    def _charge(self, account: str, seconds: float) -> None:
        self._queue.finish(account, seconds)
        self._spent += seconds
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_iteration)

    def _begin_iteration(self) -> None:
        """Other tasks have run: begin a new slice."""
        self._scheduled = False
        self._spent = 0.0
        while self._spent < self._seconds and (taken := self._queue.take()) is not None:
            account, request = taken
            began = self._clock()
            if not request.result.done():
                request.run()
            self._charge(account, self._clock() - began)
