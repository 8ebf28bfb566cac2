"""The graceful stop: on SIGTERM this process closes its sockets first, then the server stops.

A server does not tell an ASGI application that it stops: daphne cancels every application without a
close frame, uvicorn closes all sockets at once. So while the process has a hub, a handler runs
before the server's own. SIGINT is left to the server, because a person waits for it. A second
SIGTERM stops without waiting.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType

logger = logging.getLogger("realtime.hub")


class StopSignal:
    """Runs `drain` on `loop` at the first SIGTERM, for `most` seconds at the most, then the former
    handler."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, drain: Callable[[], Awaitable[None]], most: float
    ) -> None:
        self._loop = loop
        self._drain = drain
        self._most = most
        self._previous: Callable[[int, FrameType | None], object] | int | None = None
        self._installed = False
        self._begun = False
        self._passed_on = False
        self._task: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Take the place of the present handler. Does nothing outside the main thread, or where
        SIGTERM is ignored or handled by something other than Python."""
        if threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGTERM)
        if previous is None or previous is signal.SIG_IGN:
            return
        self._previous = previous
        signal.signal(signal.SIGTERM, self._handle)
        self._installed = True

    def uninstall(self) -> None:
        """Put the former handler back, unless another one was installed since."""
        if self._installed and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, self._previous)
        self._installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._begun or self._loop.is_closed():
            self._pass_on(frame)
            return
        self._begun = True
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._run(), name="rowcast-drain")

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._most):
                await self._drain()
        except Exception:
            logger.exception("the stop was not graceful", extra={"action": "drain_failed"})
        finally:
            self._pass_on(None)

    def _pass_on(self, frame: FrameType | None) -> None:
        if self._passed_on:
            return
        self._passed_on = True
        previous = self._previous
        self.uninstall()
        if callable(previous):
            previous(signal.SIGTERM, frame)
        else:
            signal.raise_signal(signal.SIGTERM)
