"""The threads for the database work of a server process.

They are few, so that a burst of joins does not open a connection each, and separate from asgiref's
single shared thread, so that a slow query of the host project does not delay every socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from django.db import close_old_connections, connections
from django.db.utils import DatabaseError, InterfaceError

from auth_rls import forks

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
FEW = THREADS // 2
FEW_SECONDS = 10.0
_CLOSE_SECONDS = 10.0
# The errors of a database that does not answer, is locked or is half migrated. A LookupError may
# also be a fault of code: where work is tried again, ask `passes`.
DATABASE_ERRORS = (DatabaseError, InterfaceError, LookupError, OSError)


class NotYetStored(LookupError):
    """The database lacks what it is to hold, and may get it: it is half migrated or restored."""


def passes(error: Exception) -> bool:
    """Whether it is an error of the database, which another attempt may not meet."""
    if isinstance(error, LookupError):
        return isinstance(error, NotYetStored)
    return isinstance(error, DATABASE_ERRORS)


_few: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    weakref.WeakKeyDictionary()
)
_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="rowcast-db")


def _begin_anew() -> None:
    global _executor
    _executor = ThreadPoolExecutor(THREADS, thread_name_prefix="rowcast-db")


forks.in_child(_begin_anew)

# Where the work of an event loop runs instead of in the threads here.
_elsewhere: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, Callable[[Callable[[], Any]], Awaitable[Any]]
] = weakref.WeakKeyDictionary()


def work_elsewhere(run: Callable[[Callable[[], Any]], Awaitable[Any]] | None) -> None:
    """Have the database work of the running loop done by `run`, which calls the function it is
    given and returns its result: for a loop that shares the connection of another thread. That
    thread looks after its connections itself. None: by the threads here, as usual."""
    loop = asyncio.get_running_loop()
    if run is None:
        _elsewhere.pop(loop, None)
    else:
        _elsewhere[loop] = run


def works_elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether `work_elsewhere` holds for this loop."""
    return loop in _elsewhere


def _run(call: Callable[[], T]) -> Awaitable[T]:
    loop = asyncio.get_running_loop()
    run = _elsewhere.get(loop)
    return loop.run_in_executor(_executor, _call, call) if run is None else run(call)


async def in_database_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a database thread and return its result."""
    return await _run(functools.partial(function, *args, **kwargs))


async def in_few_database_threads(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`in_database_thread` for work that may wait for more than the database: caches with sessions.
    At most half of the threads do such work at a time, so that the others go on if it hangs.
    Raises TimeoutError after ten seconds; the thread then stays busy until the work ends.
    """
    loop = asyncio.get_running_loop()
    if loop in _elsewhere:
        return await in_database_thread(function, *args, **kwargs)
    slots = _few.setdefault(loop, asyncio.Semaphore(FEW))
    async with asyncio.timeout(FEW_SECONDS):
        await slots.acquire()
        running = _executor.submit(functools.partial(_call, function, *args, **kwargs))

        def give_back(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(slots.release)

        running.add_done_callback(give_back)
        return await asyncio.wrap_future(running)


async def finish_in_database_thread(function: Callable[[], object]) -> None:
    """Run `function` in a database thread and wait for its end, even if the caller is cancelled
    meanwhile, any number of times. For work at the end of a process, when the loop cancels all
    tasks.
    """
    running = asyncio.ensure_future(_run(function))
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    running.result()


@contextlib.contextmanager
def unpooled(alias: str) -> Iterator[None]:
    """Within the block this thread's connection to the database is none of Django's own pool: one
    that is held for long would be missing there for the project's pages. Closed at the end."""
    pooled = connections[alias]
    if not pooled.settings_dict.get("OPTIONS", {}).get("pool"):
        yield
        return
    pooled.close()
    own = pooled.copy()
    own.settings_dict["OPTIONS"].pop("pool")
    connections[alias] = own
    try:
        yield
    finally:
        own.close()
        connections[alias] = pooled


def _call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    finally:
        # The threads live as long as the process, and so do their connections, whatever
        # CONN_MAX_AGE says for requests; a broken connection is closed here. A connection of
        # Django's pool is given back: the project's pages need it, and taking one costs little.
        for connection in connections.all(initialized_only=True):
            if connection.settings_dict.get("OPTIONS", {}).get("pool"):
                connection.close()
            connection.close_at = None
        close_old_connections()


async def close_connections() -> None:
    """Close the connections of every database thread (at the end of a server or a test)."""
    # Each call waits for the others, so that every thread gets exactly one.
    barrier = threading.Barrier(THREADS)

    def close() -> None:
        connections.close_all()
        barrier.wait(_CLOSE_SECONDS)

    loop = asyncio.get_running_loop()
    await asyncio.gather(*(loop.run_in_executor(_executor, close) for _ in range(THREADS)))
