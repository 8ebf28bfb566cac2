"""Lets a server that numbers the log itself begin with its first request, where handlers wait for
changes. Without handlers it begins with its first WebSocket.

An ASGI server need not notify an application of its start.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started

from realtime import conf
from realtime.handling import registry
from realtime.process.hub import hub
from realtime.util.database_threads import DATABASE_ERRORS

logger = logging.getLogger("realtime.hub")

_UID = "realtime.process.first_request"
_starting: set[asyncio.Task[None]] = set()


def connect() -> None:
    """Begin with the next request, if there are handlers."""
    if registry.declared():
        request_started.connect(_begin, dispatch_uid=_UID)


async def _begin(sender: Any, **kwargs: Any) -> None:
    # A server of WSGI has no event loop that stays, and test clients are no servers.
    request_started.disconnect(dispatch_uid=_UID)
    if not (isinstance(sender, type) and issubclass(sender, ASGIHandler)):
        return
    if conf.current().embedded:
        task = asyncio.create_task(_start(), name="rowcast-start")
        _starting.add(task)
        task.add_done_callback(_starting.discard)


async def _start() -> None:
    try:
        await hub().ready()
    except DATABASE_ERRORS as error:
        logger.debug("not started: %s", error, extra={"action": "start_failed"})
        connect()
