"""Health for load balancers and container probes, metrics for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from auth_rls.subjects.subject import SERVICE_ROLE
from auth_rls.subjects.token_errors import TokenError
from realtime import conf
from realtime.http.host import independent
from realtime.ops import handler_status, status
from realtime.ops.layer_probe import CachedProbe
from realtime.ops.metrics import render
from realtime.process.hub import hub
from realtime.socket import credentials
from realtime.socket.credentials import Kind
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread

logger = logging.getLogger("realtime.health")

_START_SECONDS = 1.0
_DATABASE_SECONDS = 5.0
# Without a layer events are delivered later, and none is lost.
_LAYER_SECONDS = 30.0

layer_probe = CachedProbe()


@independent
@never_cache
@require_safe
async def health(request: HttpRequest) -> JsonResponse:
    """200 while changes reach clients, 503 when they do not. Contains no names and no addresses.

    `status` is "ok", "degraded" (200: the layer is down and servers read the log instead, or a
    handler of changes stands still) or "down".
    """
    await _start(request)
    layer, (numbering, trouble) = await asyncio.gather(layer_probe.look(), _database())
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
        or layer_probe.down_for > _LAYER_SECONDS
    )
    standing = trouble is not None and (trouble.stopped or trouble.stuck)
    degraded = layer.state == "down" or standing
    body: dict[str, Any] = {
        "status": "down" if down else "degraded" if degraded else "ok",
        "database": "down" if numbering is None else "ok",
        "layer": layer.state,
        "tailer": tailer,
        "handlers": None
        if trouble is None
        else {"stopped": trouble.stopped, "stuck": trouble.stuck},
    }
    return JsonResponse(body, status=503 if down else 200)


async def _start(request: HttpRequest) -> None:
    """Start the embedded tailer, as the first socket does: a load balancer sends no socket to a
    server that is not healthy."""
    if not (conf.current().embedded and isinstance(request, ASGIRequest)):
        return
    starting = asyncio.ensure_future(hub().ready())
    starting.add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.wait({starting}, timeout=_START_SECONDS)


async def _database() -> tuple[status.Numbering | None, handler_status.Trouble | None]:
    """How far the log is numbered, and how many handlers stand still; None for what cannot be read.
    A health check never fails by the handlers' table, such as before a migration."""
    alias = conf.current().DATABASE
    numbering = None
    try:
        async with asyncio.timeout(_DATABASE_SECONDS):
            numbering = await in_database_thread(status.read_numbering, alias, status.COUNT_MOST)
            return numbering, await in_database_thread(handler_status.read_trouble, alias)
    except (TimeoutError, *DATABASE_ERRORS) as error:
        logger.debug("the database cannot be read: %s", error, extra={"action": "health_failed"})
        return numbering, None


@independent
@never_cache
@require_safe
async def metrics(request: HttpRequest) -> HttpResponse:
    """The metrics in Prometheus' text format. Only for staff and for tokens and keys of role
    service_role, because they name hosts."""
    try:
        refusal = await _not_an_operator(request)
        if refusal is not None:
            return refusal
    except DATABASE_ERRORS as error:
        logger.debug("the subject cannot be read: %s", error, extra={"action": "metrics_failed"})
        return JsonResponse({"error": "The database cannot be read"}, status=503)
    # A WSGI worker has no sockets and no lasting event loop.
    mine = hub() if isinstance(request, ASGIRequest) else None
    try:
        text, content_type = render(mine, await _status())
    except LookupError as error:
        return JsonResponse({"error": error.args[0]}, status=501)
    return HttpResponse(text, content_type=content_type)


async def _not_an_operator(request: HttpRequest) -> JsonResponse | None:
    """None for an operator; the refusal for everybody else. Raises what the database raises."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in request.headers.items()
    ]
    query = request.META.get("QUERY_STRING", "").encode("latin-1", "replace")
    credential = credentials.from_handshake(headers, query, session=False)
    if credential.kind is Kind.TOKEN:
        keys = conf.current().API_KEYS
        try:
            found = await credentials.identify(credential, api_keys=keys, allow_anonymous=False)
        except TokenError as error:
            return _unauthorized(error.handshake_reason)
        if found.subject.role == SERVICE_ROLE:
            return None
        return JsonResponse({"error": "This needs the role service_role"}, status=403)
    user = await request.auser() if hasattr(request, "auser") else None
    if user is None or not user.is_authenticated:
        return _unauthorized("This needs a staff session, or a token of role service_role")
    if user.is_active and getattr(user, "is_staff", False):
        return None
    return JsonResponse({"error": "This needs a staff user"}, status=403)


def _unauthorized(text: str) -> JsonResponse:
    return JsonResponse({"error": text}, status=401, headers={"WWW-Authenticate": "Bearer"})


async def _status() -> status.Status | None:
    alias = conf.current().DATABASE
    try:
        async with asyncio.timeout(_DATABASE_SECONDS):
            return await in_database_thread(status.read, alias, status.COUNT_MOST)
    except (TimeoutError, *DATABASE_ERRORS) as error:
        logger.debug("the database cannot be read: %s", error, extra={"action": "metrics_failed"})
        return None
