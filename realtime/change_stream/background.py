"""The event loop for code without one: a thread that runs while an iterator needs it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from auth_rls import forks

T = TypeVar("T")

_STOP_SECONDS = 15.0


class Background:
    """One at a time for all iterators of a process; see `enter`."""

    def __init__(self) -> None:
        #: How many iterators have entered, and how many need it now. Under the lock.
        self.entered = self.users = 0
        # How many have ended what they had. On the loop.
        self._finished = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="rowcast-changes", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run `work` on the loop. Raises RuntimeError when that has ended."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def finish(self, last: Coroutine[Any, Any, None]) -> None:
        """Run the last work of an iterator that has left. The loop ends after the last work of
        all."""
        work = self._finish(last)
        try:
            self.submit(work)
        except RuntimeError:
            work.close()
            last.close()

    def join(self) -> None:
        """Wait for the end of the thread, if no iterator needs it any more."""
        if self.users == 0 and threading.current_thread() is not self._thread:
            self._thread.join(_STOP_SECONDS)

    async def _finish(self, last: Coroutine[Any, Any, None]) -> None:
        try:
            await last
        finally:
            self._finished += 1
            if self.users == 0 and self._finished == self.entered:
                self._loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            with contextlib.suppress(Exception):
                self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
                self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


# Reentrant: a garbage collection may end an iterator while another one is made in the same thread.
_lock = threading.RLock()
_current: Background | None = None


def _begin_anew() -> None:
    global _current, _lock
    _current, _lock = None, threading.RLock()


forks.in_child(_begin_anew)


def enter() -> Background:
    """The loop that runs, or a new one; `leave` it afterwards."""
    global _current
    with _lock:
        if _current is None:
            _current = Background()
        _current.entered += 1
        _current.users += 1
        return _current


def leave(background: Background, last: Coroutine[Any, Any, None]) -> None:
    """An iterator needs the loop no longer; `last` ends what it had. Does not wait: a garbage
    collection may call it, in any thread."""
    global _current
    with _lock:
        background.users -= 1
        # A loop without iterators ends, so none may enter it any more.
        if background.users == 0 and _current is background:
            _current = None
    background.finish(last)
