"""Fair reading of what clients send: no client takes the event loop for long.

A client may send thousands of small messages in one packet, or one that takes long to read, on many
sockets at once. What is read in one iteration of the loop is therefore bounded. Beyond the bound,
sockets wait for the next iteration, where those of the address that has used least come first.
Within the bound nothing waits and nothing is charged.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from realtime.util.fair_share import Payer
from realtime.util.time_slice import SLICE_SECONDS

PIECE = 1_024
"""Bytes that are parsed at a time: some 150 of the smallest frames, about a millisecond."""

# Accounts without work that are remembered.
_MOST_IDLE = 10_000


class _Request(NamedTuple):
    work: Callable[[], object]
    context: Context
    done: asyncio.Future[None]


class _Account:
    """An address: the processor time that it has used, and its requests by name."""

    __slots__ = ("names", "used")

    def __init__(self, used: float) -> None:
        self.used = used
        self.names: dict[str, deque[_Request]] = {}

    def next(self) -> _Request:
        """The next request; names are served in rotation."""
        name = next(iter(self.names))
        requests = self.names.pop(name)
        request = requests.popleft()
        if requests:
            self.names[name] = requests
        return request


class ReadingShare:
    """The share of one event loop. `budget` are the seconds of work in one of its iterations."""

    def __init__(self, budget: float = SLICE_SECONDS) -> None:
        self._loop = asyncio.get_running_loop()
        self._budget = budget
        self._accounts: dict[str, _Account] = {}
        # The accounts that wait, each once, and those without work, by what they have used.
        self._waiting: list[tuple[float, int, str]] = []
        self._idle: list[tuple[float, str]] = []
        self._numbers = count()
        # What the last account had used. A new account begins with as much.
        self._level = 0.0
        self._spent = 0.0
        self._scheduled = False

    @property
    def open(self) -> bool:
        """Whether work may be done at once, without `run`."""
        return not self._waiting and self._spent < self._budget

    def spend(self, seconds: float) -> None:
        """Work was done while the share was open."""
        self._spent += seconds
        self._schedule()

    async def run(self, payer: Payer, work: Callable[[], object]) -> None:
        """Call `work` in an iteration of the loop that has time for it. Raises what it raises."""
        key = payer.account
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(self._level)
        if not account.names:
            heapq.heappush(self._waiting, (account.used, next(self._numbers), key))
        request = _Request(work, copy_context(), self._loop.create_future())
        account.names.setdefault(payer.name, deque()).append(request)
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
        while self._waiting and self._spent < self._budget:
            used, _, key = heapq.heappop(self._waiting)
            account = self._accounts[key]
            self._level = max(self._level, used)
            cost = _do(account.next())
            account.used += cost
            self._spent += cost
            if account.names:
                heapq.heappush(self._waiting, (account.used, next(self._numbers), key))
            else:
                heapq.heappush(self._idle, (account.used, key))
        self._forget()
        if self._waiting:
            self._schedule()

    def _forget(self) -> None:
        """Forget accounts without work that a new one is no better than."""
        while self._idle and (self._idle[0][0] <= self._level or len(self._idle) > _MOST_IDLE):
            used, key = heapq.heappop(self._idle)
            account = self._accounts.get(key)
            if account is not None and not account.names and account.used == used:
                del self._accounts[key]


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
    return Payer(str(client[0]) if client else "", str(id(protocol)))
