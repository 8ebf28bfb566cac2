"""One attempt at some changes: the code of a handler and the move of its cursor, in a transaction.

Another thread may give an attempt up because it takes too long. A function cannot be killed: it is
left to itself, its statement is cancelled, its connection is closed and every later statement of
its thread is refused, so that nothing of the attempt is committed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import connections, transaction

from realtime.wal.vendor import vendor_of

MOST_ERROR = 4_000
"""Characters kept of what code of a handler raised."""

# For a statement to end after it was cancelled.
_CANCEL_SECONDS = 5.0
_LOOK_SECONDS = 0.05


class GivenUp(Exception):
    """The attempt was given up; its thread has nothing more to do."""


def text_of(error: BaseException) -> str:
    """What code of a handler raised, as a text that every database stores, and not too long."""
    name = type(error).__name__
    try:
        said = str(error)
    except Exception:
        return name
    text = (f"{name}: {said}" if said else name)[:MOST_ERROR]
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def run_aside(
    alias: str, seconds: float, work: Callable[[], object], mark: Callable[[], object]
) -> None:
    """An attempt in a thread of its own, for which this one waits. Raises what `work` and `mark`
    raise, and TimeoutError after so many seconds; nothing is committed then. What is left for
    `on_commit` is not waited for any longer than that."""
    begun: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            attempt = Attempt(alias, seconds)
            begun.put(attempt)
            attempt.run(work, mark, in_transaction=True)
        except BaseException as error:
            raised.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="rowcast-attempt", daemon=True)
    thread.start()
    attempt = begun.get()
    thread.join(seconds)
    while thread.is_alive() and not attempt.lingers:
        if attempt.give_up():
            raise TimeoutError(f"no end within {seconds:g} seconds")
        # It is being committed, which the database ends.
        thread.join(_LOOK_SECONDS)
    if raised and not attempt.committed:
        raise raised[0]


class Attempt:
    """Made and run in one thread, given up from another. `seconds` is its time limit."""

    def __init__(self, alias: str, seconds: float) -> None:
        self._connection: Any = connections[alias]
        self._alias = alias
        self._deadline = time.monotonic() + seconds
        # Held while a statement runs.
        self._statement = threading.RLock()
        # Guards the two below, of which only one becomes true.
        self._state = threading.Lock()
        self._given_up = False
        self._sealed = False
        self._committed = False
        self._ended = False

    @property
    def overdue(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self._deadline

    @property
    def committed(self) -> bool:
        """Whether it is done, but for what it left for `on_commit`."""
        return self._committed

    @property
    def lingers(self) -> bool:
        """Whether it is committed, and what it left for `on_commit` has not ended."""
        return self._committed and not self._ended

    def run(
        self, work: Callable[[], object], mark: Callable[[], object], *, in_transaction: bool
    ) -> None:
        """Do `work` and then `mark`, in one transaction; the work before it begins unless
        `in_transaction`. Raises what they raise, and GivenUp."""
        # Another thread may close it.
        self._connection.inc_thread_sharing()
        try:
            with self._connection.execute_wrapper(self._guarded):
                if not in_transaction:
                    work()
                with transaction.atomic(using=self._alias, durable=True):
                    # Before anything that the work leaves.
                    transaction.on_commit(self._note_commit, using=self._alias)
                    if in_transaction:
                        work()
                    mark()
                    self._seal()
        except BaseException:
            if self._given_up:
                raise GivenUp from None
            raise
        finally:
            with self._state:
                # The thread uses its connection for other things now.
                self._sealed = True
            self._ended = True
            self._connection.dec_thread_sharing()

    def _seal(self) -> None:
        """From here on it is not given up: whether it was committed would not be known."""
        with self._state:
            if self._given_up:
                raise GivenUp
            self._sealed = True

    def _note_commit(self) -> None:
        self._committed = True

    def _guarded(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        with self._statement:
            if self._given_up:
                raise GivenUp
            return execute(sql, params, many, context)

    def give_up(self) -> bool:
        """Let nothing of it be committed. From another thread. False if it is being committed, or
        has ended."""
        with self._state:
            if self._sealed:
                return False
            self._given_up = True
        with suppress(Exception):
            vendor_of(self._connection).cancel(self._connection)
        # Not to be waited for any longer: without another statement nothing is committed anyway.
        if self._statement.acquire(timeout=_CANCEL_SECONDS):
            try:
                with suppress(Exception):
                    # SQLite would hold its lock as long as any of the thread's cursors lives.
                    self._connection.connection.rollback()
                with suppress(Exception):
                    self._connection.close()
            finally:
                self._statement.release()
        return True
