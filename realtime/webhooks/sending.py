"""The sender of a process, in a thread with an event loop of its own: TLS and slow
receivers take no time from the sockets of a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from realtime.webhooks.sender import Sender


class Sending:
    """One per process that sends webhooks. `start` it once."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._sender: Sender | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Send in a thread of its own."""
        # A daemon: what a process that ends leaves unsent, another one sends.
        self._thread = threading.Thread(target=self._main, name="rowcast-webhooks", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Begin no more requests, cut off those that are under way, and wait up to so many seconds
        until their webhooks were given back. From any thread."""
        with self._lock:
            self._stopped = True
            if self._loop is not None and self._task is not None:
                with contextlib.suppress(RuntimeError):  # it has ended
                    self._loop.call_soon_threadsafe(self._task.cancel)
        if self._thread is not None:
            self._thread.join(seconds)

    def _main(self) -> None:
        _running.add(self)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(self._run())
        finally:
            _running.discard(self)

    async def _run(self) -> None:
        with self._lock:
            if self._stopped:
                return
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.current_task()
            self._sender = Sender(self._alias)
        await self._sender.run()

    def wake(self) -> None:
        """Look at once for what waits. From any thread."""
        with self._lock:
            if self._loop is not None and self._sender is not None:
                with contextlib.suppress(RuntimeError):  # it has ended
                    self._loop.call_soon_threadsafe(self._sender.wake)


# Of this process.
_running: set[Sending] = set()


def wake() -> None:
    """Have the senders of this process look at once. Others look now and then."""
    for each in list(_running):
        each.wake()
