"""Broadcasts over HTTP: one or many per request, JSON or bytes, from any origin.

A browser's session is ignored, so that no other site can send in the name of its user. The subject
comes from a token or an opaque key; without one it is anonymous.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.db import DataError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from auth_rls.sql.failures import public_reason
from auth_rls.subjects.subject import Subject
from auth_rls.subjects.token_errors import TokenError
from realtime import conf
from realtime.http.cors import allow_any_origin
from realtime.http.host import independent
from realtime.http.posted import (
    Invalid,
    Unreadable,
    name_errors,
    payload_errors,
    read_batch,
    read_payload,
)
from realtime.http.send_permissions import sendable
from realtime.http.senders import OverLimit, Sender
from realtime.process.broadcast_sender import TooManyWaiting, send
from realtime.protocol.errors import WireError
from realtime.protocol.serializer import PREFIX, Encoding
from realtime.socket import credentials
from realtime.topics.broadcast import Broadcast
from realtime.topics.stored import store_async
from realtime.util.database_threads import DATABASE_ERRORS

logger = logging.getLogger("realtime.broadcast")

_JSON, _BYTES = "application/json", "application/octet-stream"
_EVENTS = "/events/"

View = Callable[..., Awaitable[HttpResponse]]


class _Answer(Exception):
    """Ends the request with this answer."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.response = JsonResponse(body, status=status)


def _open(view: View) -> Callable[..., Any]:
    """Wrap a view: preflight, method, errors, and the headers of every answer."""

    @csrf_exempt
    @independent
    @functools.wraps(view)
    async def wrapped(request: HttpRequest, **names: str) -> HttpResponse:
        if request.method == "OPTIONS":
            response = HttpResponse(status=204)
        elif request.method != "POST":
            response = JsonResponse({"message": "Use POST"}, status=405)
        else:
            response = await _answered(view, request, names)
        return allow_any_origin(request, response)

    return wrapped


async def _answered(view: View, request: HttpRequest, names: dict[str, str]) -> HttpResponse:
    try:
        return await view(request, **names)
    except _Answer as answer:
        return answer.response
    except Unreadable as error:
        return JsonResponse({"message": str(error)}, status=400)
    except Invalid as error:
        return JsonResponse({"errors": error.errors}, status=422)
    except (OverLimit, TooManyWaiting):
        return JsonResponse({"message": WireError.TOO_MANY_MESSAGES.text()}, status=429)
    except (ConnectionError, TimeoutError) as error:
        logger.warning("broadcast not sent: %s", error, extra={"action": "broadcast_not_sent"})
        return JsonResponse({"message": "The channel layer does not answer"}, status=503)
    except DataError as error:
        # A value that this database does not store, such as a NUL.
        return JsonResponse({"errors": {"message": [public_reason(error)]}}, status=422)
    except DATABASE_ERRORS as error:
        logger.warning("broadcast not sent: %s", error, extra={"action": "broadcast_not_sent"})
        return JsonResponse({"message": "The database does not answer"}, status=503)


@_open
async def batch(request: HttpRequest) -> HttpResponse:
    """`{"messages": [{"topic", "event", "payload", "private"?, "id"?}, ...]}`. 202; messages to
    private topics that the sender may not send to are skipped without an error."""
    limits = conf.current().LIMITS
    sender = Sender(request, await _subject(request))
    body = _body(request)
    sender.spend_bytes(len(body))
    messages = await sender.read(
        body, lambda: read_batch(body, limits.messages_per_post, limits.payload_bytes)
    )
    sender.spend_messages(len(messages))
    private = await sendable(sender.subject, (m.topic for m in messages if m.private))
    public = not conf.current().PRIVATE_ONLY
    sent = (m for m in messages if (m.topic in private if m.private else public))
    await send(*map(sender.sign, sent))
    return HttpResponse(status=202)


@_open
async def single(request: HttpRequest, *, topic: str, event: str) -> HttpResponse:
    """The body is the payload. `?private=true` for a private topic, and `&persist=true` to store
    it too. 202, or 403 without permission."""
    topic, event = _as_sent(request, topic, event)
    sender = Sender(request, await _subject(request))
    sender.spend_messages(1)
    body = _body(request)
    sender.spend_bytes(len(body))
    kind = (request.content_type or _JSON).lower()
    if kind not in (_JSON, _BYTES):
        text = f"Unsupported Media Type. Use {_JSON} or {_BYTES}"
        raise _Answer(415, {"error": text})
    private, persist = _flag(request, "private"), _flag(request, "persist")
    # A time to live has no meaning here: all stored messages are pruned with the log.
    persist = persist or "persist[ttl]" in request.GET
    errors = name_errors(topic, event) | payload_errors(body, conf.current().LIMITS.payload_bytes)
    if persist and not private:
        errors["persist"] = ["is for private topics only"]
    if errors:
        raise Invalid(errors)
    topic = topic.removeprefix(PREFIX)
    encoding = Encoding.BINARY
    if kind == _JSON:
        encoding, body = Encoding.JSON, await sender.read(body, lambda: read_payload(body))
    if not await _may_send(sender.subject, topic, private):
        raise _Answer(403, {"message": "Unauthorized"})
    message = sender.sign(Broadcast(topic, private, event, body, encoding))
    await (store_async if persist else send)(message)
    return HttpResponse(status=202)


def _as_sent(request: HttpRequest, topic: str, event: str) -> tuple[str, str]:
    """Topic and event, split as the sender did: a slash in a name is sent as `%2F`. Django's path
    is decoded and does not show the difference; there the last `/events/` splits them."""
    if not isinstance(request, ASGIRequest):
        return topic, event
    # Servers may leave it out.
    path: bytes = request.scope.get("raw_path") or b""
    sent = unquote(path.rpartition(_EVENTS.encode())[2].decode("latin-1"))
    names, ending = f"{topic}{_EVENTS}{event}", f"{_EVENTS}{sent}"
    # Only one of the paths was rewritten: Django's path counts.
    if not sent or not names.endswith(ending):
        return topic, event
    return names.removesuffix(ending), sent


async def _subject(request: HttpRequest) -> Subject:
    settings = conf.current()
    headers = [
        # The header that browsers send as `apikey` is `x-api-key` in a handshake.
        (b"x-api-key" if name.lower() == "apikey" else name.lower().encode(), value.encode())
        for name, value in request.headers.items()
    ]
    query = request.META.get("QUERY_STRING", "").encode()
    credential = credentials.from_handshake(headers, query, session=False)
    try:
        found = await credentials.identify(
            credential, api_keys=settings.API_KEYS, allow_anonymous=settings.ALLOW_ANONYMOUS
        )
        return found.subject
    except TokenError as error:
        logger.info("broadcast refused: %s", error, extra={"action": "broadcast_refused"})
        raise _Answer(401, {"message": "Unauthorized"}) from None


async def _may_send(subject: Subject, topic: str, private: bool) -> bool:
    if not private:
        return not conf.current().PRIVATE_ONLY
    return topic in await sendable(subject, [topic])


def _body(request: HttpRequest) -> bytes:
    most = conf.current().LIMITS.frame_bytes
    try:
        body = request.body
    except RequestDataTooBig:
        raise _Answer(413, {"message": "The body is too large"}) from None
    if most is not None and len(body) > most:
        raise _Answer(413, {"message": f"The body is too large: at most {most} bytes"})
    return body


def _flag(request: HttpRequest, name: str) -> bool:
    return request.GET.get(name, "").lower() in ("true", "1")
