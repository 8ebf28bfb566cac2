"""Threads for functions of the project that may hang.

They are apart from the database threads, so that a function that hangs delays only others of its
kind, and daemonic, so that it does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from django.db import connections

from realtime.util.database_threads import in_database_thread, works_elsewhere

P = ParamSpec("P")
T = TypeVar("T")

#: How many functions of the project run at a time.
THREADS = 2

_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    weakref.WeakKeyDictionary()
)


async def in_hook_thread(
    seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a function of the project and return its result. Raises TimeoutError after so many
    seconds, also where no thread was free; a thread stays busy until its function returns."""
    call = functools.partial(function, *args, **kwargs)
    loop = asyncio.get_running_loop()
    if works_elsewhere(loop):
        return await in_database_thread(call)
    slots = _slots.setdefault(loop, asyncio.Semaphore(THREADS))
    async with asyncio.timeout(seconds):
        await slots.acquire()
        running: Future[T] = Future()

        def give_back(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(slots.release)

        running.add_done_callback(give_back)
        running.set_running_or_notify_cancel()
        _start(running, call)
        return await asyncio.wrap_future(running)


def _start(running: Future[T], call: Callable[[], T]) -> None:
    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            running.set_exception(error)
        else:
            running.set_result(result)
        finally:
            # The thread ends here, and its connections would stay.
            connections.close_all()

    try:
        threading.Thread(target=run, name="rowcast-hook", daemon=True).start()
    except RuntimeError as error:  # the process may have no more threads now
        running.set_exception(TimeoutError(str(error)))
