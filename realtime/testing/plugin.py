"""The pytest plugin: the fixture `realtime_client`, and what its errors need to know.

Loaded by every run of pytest in an environment that has Rowcast, with or without Django: it imports
nothing of either until the fixture is used.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Around each test of a run that uses the kit, note whether it is inside a transaction."""
    kit = sys.modules.get("realtime.testing.preconditions")
    if kit is None:
        return (yield)
    with kit.noting_transaction():
        return (yield)


@pytest.fixture
def realtime_client(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[Any]:
    """Connects clients: `client = await realtime_client(user=alice)`, or with `token=`, or with
    neither. The server starts with the first client and ends with the test. In a test that is not
    async the same without `await`."""
    from realtime.testing.running import realtime_server
    from realtime.testing.server import RealtimeServer

    test = getattr(request.node, "obj", None)
    if not inspect.iscoroutinefunction(test):
        with realtime_server() as connect:
            yield connect
        return
    server = RealtimeServer()
    server.prepare()
    # The server ends on the test's own loop, whichever plugin runs it.
    request.node.obj = _ending(test, server)
    try:
        yield server
    finally:
        try:
            _end(server)
        finally:
            server.restore()


def _ending(test: Any, server: Any) -> Any:
    @functools.wraps(test)
    async def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            await test(*args, **kwargs)
        finally:
            await server.stop()

    return wrapped


def _end(server: Any) -> None:
    """End a server that an async fixture started for a test that then did not run."""
    loop = server.loop
    if loop is not None and not loop.is_closed() and not loop.is_running():
        loop.run_until_complete(server.stop())
