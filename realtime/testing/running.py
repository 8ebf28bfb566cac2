"""`realtime_server`: the live server as a context manager, for tests without the fixture."""

from __future__ import annotations

from types import TracebackType

from realtime.testing.blocking import BlockingServer
from realtime.testing.server import RealtimeServer


class _Running:
    """What `realtime_server()` returns: `async with`, or `with` for code that is not async."""

    def __init__(self) -> None:
        self._server = RealtimeServer()
        self._blocking: BlockingServer | None = None

    async def __aenter__(self) -> RealtimeServer:
        self._server.prepare()
        try:
            await self._server.start()
        except BaseException:
            self._server.restore()
            raise
        return self._server

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._server.stop()
        finally:
            self._server.restore()

    def __enter__(self) -> BlockingServer:
        self._server.prepare()
        try:
            self._blocking = BlockingServer(self._server)
        except BaseException:
            self._server.restore()
            raise
        return self._blocking

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._blocking is not None:
                self._blocking.close()
        finally:
            self._server.restore()


def realtime_server() -> _Running:
    """A server for a test without the fixture: `async with realtime_server() as connect:` and then
    `client = await connect(user=alice)`; in code that is not async the same with `with` and without
    `await`. It needs a test that commits: `TransactionTestCase`, or pytest-django's
    `transactional_db`."""
    return _Running()
