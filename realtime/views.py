"""The HTTP side: the health of this installation, for load balancers and container probes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from realtime import conf, status
from realtime.hub import hub
from realtime.log_reader import DATABASE_ERRORS
from realtime.pool import in_database_thread
from realtime.probe import Watchman

logger = logging.getLogger("realtime.health")

_START_SECONDS = 1.0
_DATABASE_SECONDS = 5.0
# Without a layer events come later and nothing is lost.
_LAYER_SECONDS = 30.0

_watchman = Watchman()


@never_cache
@require_safe
async def health(request: HttpRequest) -> JsonResponse:
    """200 while changes reach clients, 503 when they do not. Tells no names and no addresses.

    `status` is "ok", "degraded" (200: the layer is down, servers read the log instead) or "down".
    """
    await _start(request)
    layer, numbering = await asyncio.gather(_watchman.look(), _numbering())
    tailer: dict[str, Any] = {"lag_ms": None, "backlog": None, "leader": None}
    if numbering is not None:
        tailer = {
            "lag_ms": numbering.lag_ms,
            "backlog": numbering.backlog,
            "leader": numbering.leader is not None,
        }
    down = (
        numbering is None
        or (numbering.leader is None and numbering.lag_ms > status.IDLE_MS)
        or _watchman.down_for > _LAYER_SECONDS
    )
    degraded = layer.state == "down"
    body: dict[str, Any] = {
        "status": "down" if down else "degraded" if degraded else "ok",
        "database": "down" if numbering is None else "ok",
        "layer": layer.state,
        "tailer": tailer,
    }
    return JsonResponse(body, status=503 if down else 200)


async def _start(request: HttpRequest) -> None:
    """Start the embedded tailer as the first socket would: where a load balancer sends nobody to
    a server that is not healthy, there would never be one."""
    if not (conf.current().embedded and isinstance(request, ASGIRequest)):
        return
    starting = asyncio.ensure_future(hub().ready())
    starting.add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.wait({starting}, timeout=_START_SECONDS)


async def _numbering() -> status.Numbering | None:
    alias = conf.current().DATABASE
    try:
        async with asyncio.timeout(_DATABASE_SECONDS):
            return await in_database_thread(status.read_numbering, alias, status.COUNT_MOST)
    except (TimeoutError, *DATABASE_ERRORS) as error:
        logger.debug("the database cannot be read: %s", error, extra={"action": "health_failed"})
        return None
