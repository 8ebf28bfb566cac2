"""Fair reading of what clients send: no client takes the event loop for long.

A client may send thousands of small messages in one packet, or one that takes long to read, on many
sockets at once. What is read in one iteration of the loop is therefore bounded. Beyond the bound,
sockets wait for the next iteration, where those of the address that has used least come first.
Within the bound nothing waits and nothing is charged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from realtime.util.network import network
from realtime.util.payer_queue import Payer, PayerQueue
from realtime.util.time_slice import SLICE_SECONDS

PIECE = 1_024
"""Bytes that are parsed at a time: some 150 of the smallest frames, about a millisecond."""


class _Request(NamedTuple):
    work: Callable[[], object]
    context: Context
    done: asyncio.Future[None]


class ReadingShare:
    """The share of one event loop. `budget` are the seconds of work in one of its iterations."""

    def __init__(self, budget: float = SLICE_SECONDS) -> None:
        self._loop = asyncio.get_running_loop()
        self._budget = budget
        self._queue: PayerQueue[_Request] = PayerQueue()
        self._spent = 0.0
        self._scheduled = False

    @property
    def open(self) -> bool:
        """Whether work may be done at once, without `run`."""
        return not self._queue.waiting and self._spent < self._budget

    def spend(self, seconds: float) -> None:
        """Work was done while the share was open."""
        self._spent += seconds
        self._schedule()

    async def run(self, payer: Payer, work: Callable[[], object]) -> None:
        """Call `work` in an iteration of the loop that has time for it. Raises what it raises."""
        request = _Request(work, copy_context(), self._loop.create_future())
        self._queue.put(payer, request)
        self._schedule()
        await request.done

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._iterate)

    def _iterate(self) -> None:
        """The work of one iteration: the least used accounts first, until the time is up."""
        self._scheduled = False
        self._spent = 0.0
        while self._spent < self._budget and (taken := self._queue.take()) is not None:
            account, request = taken
            cost = _do(request)
            self._queue.finish(account, cost)
            self._spent += cost
        if self._queue.waiting:
            self._schedule()


def _do(request: _Request) -> float:
    """Do the work of a request that is still wanted; the processor time it took, since waiting for
    the processor is no fault of the payer's."""
    if request.done.done():
        return 0.0
    began = time.thread_time()
    try:
        request.context.run(request.work)
    except Exception as error:
        if not request.done.done():
            request.done.set_exception(error)
    else:
        # The work may have cancelled the task that waits for it.
        if not request.done.done():
            request.done.set_result(None)
    return time.thread_time() - began


_shares: WeakKeyDictionary[asyncio.AbstractEventLoop, ReadingShare] = WeakKeyDictionary()


def reading_share() -> ReadingShare:
    """The share at reading of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _shares.get(loop)
    if found is None:
        found = _shares[loop] = ReadingShare()
    return found


def payer_of(client: Any, protocol: object) -> Payer:
    """The payer for what a server's connection reads; `client` is its address as ASGI has it."""
    return Payer(network(str(client[0])) if client else "", str(id(protocol)))
