"""Work on the event loop for many payers: a time slice in each iteration, in fair order.

Other tasks run between two slices, however much work waits. Within a slice the payers that have
used least come first, and each piece of work runs to its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from realtime.util.payer_queue import Payer, PayerQueue
from realtime.util.time_slice import SLICE_SECONDS

T = TypeVar("T")


class _Request(Generic[T]):
    """Work that waits, and the future of its result."""

    __slots__ = ("_context", "_work", "result")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._context = copy_context()
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def run(self) -> None:
        """Do the work, unless nobody waits for it."""
        if self.result.done():
            return
        try:
            done = self._context.run(self._work)
        except asyncio.CancelledError:
            self.result.cancel()
        except Exception as error:
            if not self.result.done():
                self.result.set_exception(error)
        else:
            # The work may have cancelled the task that waits for it.
            if not self.result.done():
                self.result.set_result(done)


class LoopShare:
    """Work for about `seconds` in an iteration of the loop. A single piece of work is not
    interrupted, so each should take less. The clock counts processor time as a rule, since waiting
    for the processor is no fault of a payer's.

    Where nobody waits, work may be done `at_once`, in the order of the calls. Otherwise each piece
    waits for the next slice: a payer with piece after piece, each larger than a slice, then does
    one in each iteration and passes nobody who came in the same one.
    """

    def __init__(
        self,
        seconds: float = SLICE_SECONDS,
        clock: Callable[[], float] = time.thread_time,
        *,
        at_once: bool = True,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._at_once = at_once
        self._queue: PayerQueue[_Request[Any]] = PayerQueue()
        # Seconds of work since other tasks last ran.
        self._spent = 0.0
        self._scheduled = False

    @property
    def open(self) -> bool:
        """Whether work may be done at once and without `run`, if `spend` is told of it."""
        return self._spent < self._seconds and not self._queue.waiting

    def spend(self, seconds: float) -> None:
        """Work was done while the share was open. It is charged to nobody."""
        self._spent += seconds
        self._schedule()

    async def run(self, payer: Payer, work: Callable[[], T]) -> T:
        """The result of `work`, which is called at once or in a later slice and does not await.
        Raises what it raises. It is not called any more once the caller is cancelled."""
        if self._at_once and self._spent < self._seconds and self._queue.begin(payer):
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
        self.spend(seconds)

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
            try:
                request.run()
            finally:
                self._charge(account, self._clock() - began)
