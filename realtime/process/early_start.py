"""Lets a server that numbers the log itself begin without a WebSocket, where handlers or webhooks
wait for changes.

An ASGI server need not notify an application of its start. That of uvicorn is followed by its
`Server`, that of daphne by Twisted's reactor; under another server the first request begins.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started

from realtime import conf
from realtime.handling import registry
from realtime.process.hub import Hub, hub
from realtime.util.backoff import Backoff
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread

logger = logging.getLogger("realtime.hub")

_UID = "realtime.process.early_start"
# A webhook may be added, and the database may come.
_FIRST_LOOK, _LAST_LOOK = 0.5, 30.0


def with_the_server() -> None:
    """Begin as soon as the server that loads the application listens."""
    server: Any = getattr(sys.modules.get("uvicorn.server"), "Server", None)
    if inspect.iscoroutinefunction(getattr(server, "startup", None)):
        _follow(server)
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is not None:
        # Twisted's event loop runs after this call. In programs that are no servers it never does.
        reactor.callWhenRunning(reactor.callLater, 0, _begin)


@functools.cache
def _follow(server: Any) -> None:
    """Begin when a server of this class of uvicorn has started."""
    startup = server.startup

    @functools.wraps(startup)
    async def startup_and_begin(self: Any, *args: Any, **kwargs: Any) -> None:
        await startup(self, *args, **kwargs)
        _begin()

    server.startup = startup_and_begin


def with_the_first_request() -> None:
    """Begin with the next request of a server."""
    request_started.connect(_on_request, dispatch_uid=_UID)


async def _on_request(sender: Any, **kwargs: Any) -> None:
    # A server of WSGI has no event loop that stays, and test clients are no servers.
    request_started.disconnect(dispatch_uid=_UID)
    if isinstance(sender, type) and issubclass(sender, ASGIHandler):
        _begin()


def _begin() -> None:
    if not conf.current().embedded:
        return
    try:
        here = hub()
    except RuntimeError:
        return  # A reactor of Twisted that is not asyncio's.
    if here.early is None:
        here.early = asyncio.create_task(_start(here), name="rowcast-early-start")


async def _start(here: Hub) -> None:
    pauses = Backoff(_FIRST_LOOK, _LAST_LOOK)
    while True:
        try:
            if await in_database_thread(registry.definitions):
                await here.ready()
                return
        except DATABASE_ERRORS as error:
            logger.debug("not started: %s", error, extra={"action": "start_failed"})
        await asyncio.sleep(pauses.next())
