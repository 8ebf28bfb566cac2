"""The server and its clients for tests that are not async.

The event loop runs in a thread of its own. Database work is done by the thread that calls, while it
waits here: by the test's own connection, and never while the test does something else. So the
stream stands still between two calls.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from realtime.subscriptions.change import Change
from realtime.testing.channel import PATIENCE, Broadcast, Channel
from realtime.testing.client import Client
from realtime.testing.preconditions import SetupError
from realtime.testing.server import RealtimeServer

T = TypeVar("T")


class _Driver:
    """Runs coroutines on its loop, and the database work of the loop in the calling thread."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rowcast-testing", daemon=True)
        self._thread.start()
        self._ready.wait()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.add_done_callback(lambda _: self._jobs.put(None))
        while (job := self._jobs.get()) is not None:
            job()
        return future.result()

    async def in_calling_thread(self, call: Callable[[], Any]) -> Any:
        """Have a function called by the thread that waits, or will wait, in `call`."""
        result: Future[Any] = Future()

        def job() -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                result.set_result(call())
            except BaseException as error:
                result.set_exception(error)

        self._jobs.put(job)
        return await asyncio.wrap_future(result)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ready.set()
        await self._stop.wait()


class BlockingServer:
    """`RealtimeServer` without await: called with a user or a token it returns a client."""

    def __init__(self, server: RealtimeServer) -> None:
        """Raises SetupError."""
        if _on_a_loop():
            raise SetupError(
                "In async code write `async with realtime_server()`, and `await`: this form waits "
                "in the thread of the event loop."
            )
        self._server = server
        self._driver = _Driver()
        try:
            self._driver.call(server.start(self._driver.in_calling_thread))
        except BaseException:
            self._driver.close()
            raise

    def __call__(
        self,
        user: Any = None,
        token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> BlockingClient:
        """See `RealtimeServer`."""
        client = self._driver.call(self._server(user, token, headers=headers))
        return BlockingClient(client, self._driver)

    def settled(self) -> None:
        """See `RealtimeServer`."""
        self._driver.call(self._server.settled())

    def kill_sequencer(self, *, numbering: bool = False) -> None:
        """See `RealtimeServer`."""
        self._driver.call(self._server.kill_sequencer(numbering=numbering))

    def start_sequencer(self) -> None:
        """See `RealtimeServer`."""

        async def start() -> None:
            self._server.start_sequencer()

        self._driver.call(start())

    def close(self) -> None:
        """Close every client and end the server."""
        try:
            self._driver.call(self._server.stop())
        finally:
            self._driver.close()


class BlockingClient:
    """`Client` without await."""

    def __init__(self, client: Client, driver: _Driver) -> None:
        self._client = client
        self._driver = driver

    def join(
        self,
        topic: str,
        changes: Iterable[Any] = (),
        private: bool = False,
        *,
        presence_key: str = "",
    ) -> BlockingChannel:
        """See `Client`."""
        joining = self._client.join(topic, changes, private, presence_key=presence_key)
        return BlockingChannel(self._driver.call(joining), self._driver)

    def closed(self, timeout: float = PATIENCE) -> int:
        """See `Client`."""
        return self._driver.call(self._client.closed(timeout))

    def close(self) -> None:
        """See `Client`."""
        self._driver.call(self._client.close())


class BlockingChannel:
    """`Channel` without await."""

    def __init__(self, channel: Channel, driver: _Driver) -> None:
        self._channel = channel
        self._driver = driver

    def next_change(
        self, model: Any = None, *, type: str | None = None, timeout: float = PATIENCE
    ) -> Change:
        """See `Channel`."""
        return self._driver.call(self._channel.next_change(model, type=type, timeout=timeout))

    def next_broadcast(self, event: str | None = None, *, timeout: float = PATIENCE) -> Broadcast:
        """See `Channel`."""
        return self._driver.call(self._channel.next_broadcast(event, timeout=timeout))

    def nothing(self, seconds: float = 0.1) -> None:
        """See `Channel`."""
        self._driver.call(self._channel.nothing(seconds))

    def broadcast(self, event: str, payload: Any) -> None:
        """See `Channel`."""
        self._driver.call(self._channel.broadcast(event, payload))

    def presence(self) -> dict[str, list[dict[str, Any]]]:
        """See `Channel`."""
        return self._channel.presence()

    def track(self, meta: Mapping[str, Any] | None = None) -> None:
        """See `Channel`."""
        self._driver.call(self._channel.track(meta))

    def untrack(self) -> None:
        """See `Channel`."""
        self._driver.call(self._channel.untrack())

    def until(
        self,
        condition: Callable[[], object],
        what: str = "the condition",
        *,
        timeout: float = PATIENCE,
    ) -> None:
        """See `Channel`. `condition` runs on the event loop, so it may not use the database."""
        self._driver.call(self._channel.until(condition, what, timeout=timeout))

    def leave(self) -> None:
        """See `Channel`."""
        self._driver.call(self._channel.leave())


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
