"""Broadcasts over HTTP: one or many per request, JSON or bytes, from any origin.

A browser's session does not count, so that no other site can send in the name of its user. The
subject comes from a token or an opaque key; without one it is anonymous.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import msgspec
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from auth_rls.middleware import authenticates_itself
from auth_rls.subjects.subject import SERVICE_ROLE, Subject
from auth_rls.subjects.tokens import TokenError
from realtime import conf
from realtime.process.broadcast_sender import send
from realtime.process.hub import hub
from realtime.protocol.errors import WireError
from realtime.protocol.serializer import PREFIX, Encoding, FrameError, check_json
from realtime.session.quotas import QuotaChain, Quotas, Rates
from realtime.socket import credentials
from realtime.subscriptions.planner import Planner
from realtime.topics.broadcast import Broadcast
from realtime.topics.stored import store_async
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread

logger = logging.getLogger("realtime.broadcast")

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "apikey, authorization, content-type, x-client-info",
    "Access-Control-Allow-Methods": "POST, OPTIONS",
    "Access-Control-Max-Age": "86400",
}
_JSON, _BYTES = "application/json", "application/octet-stream"
_BLANK = "can't be blank"
_EVENTS = "/events/"

View = Callable[..., Awaitable[HttpResponse]]
_decode_batch = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder(Any).decode


class _Answer(Exception):
    """Ends the request with this answer."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.response = JsonResponse(body, status=status)


def _open(view: View) -> Callable[..., Any]:
    """Wraps both views: preflight, method, errors, and the headers of every answer."""

    @csrf_exempt
    @authenticates_itself
    @functools.wraps(view)
    async def wrapped(request: HttpRequest, **names: str) -> HttpResponse:
        try:
            if request.method == "OPTIONS":
                response = HttpResponse(status=204)
            elif request.method != "POST":
                raise _Answer(405, {"message": "Use POST"})
            else:
                response = await view(request, **names)
        except _Answer as answer:
            response = answer.response
        except DATABASE_ERRORS as error:
            logger.warning("broadcast not sent: %s", error, extra={"action": "broadcast_not_sent"})
            response = JsonResponse({"message": "The database does not answer"}, status=503)
        except (ConnectionError, TimeoutError, RuntimeError) as error:
            logger.warning("broadcast not sent: %s", error, extra={"action": "broadcast_not_sent"})
            response = JsonResponse({"message": "The channel layer does not answer"}, status=503)
        for name, value in _CORS.items():
            response[name] = value
        return response

    return wrapped


@_open
async def batch(request: HttpRequest) -> HttpResponse:
    """`{"messages": [{"topic", "event", "payload", "private"?, "id"?}, ...]}`. 202; messages to
    private topics that the sender may not send to are skipped without an error."""
    subject = await _subject(request)
    messages = _messages(_body(request))
    _spend_quota(request, subject, len(messages))
    for message in messages:
        if await _may_send(subject, message.topic, message.private):
            await send(message)
    return HttpResponse(status=202)


@_open
async def single(request: HttpRequest, *, topic: str, event: str) -> HttpResponse:
    """The body is the payload. `?private=true` for a private topic, and `&persist=true` to store
    it too. 202, or 403 without permission."""
    topic, event = _as_sent(request, topic, event)
    subject = await _subject(request)
    _spend_quota(request, subject, 1)
    body = _body(request)
    kind = (request.content_type or _JSON).lower()
    if kind not in (_JSON, _BYTES):
        text = f"Unsupported Media Type. Use {_JSON} or {_BYTES}"
        raise _Answer(415, {"error": text})
    if kind == _JSON:
        body = body or b"{}"
        _read(body, _decode_any)
    private, persist = _flag(request, "private"), _flag(request, "persist")
    # A time to live has no meaning here: all stored messages are pruned with the log.
    persist = persist or "persist[ttl]" in request.GET
    errors = {} if topic.removeprefix(PREFIX) else {"topic": [_BLANK]}
    if persist and not private:
        errors["persist"] = ["is for private topics only"]
    errors |= _too_large(body)
    if errors:
        raise _Answer(422, {"errors": errors})
    encoding = Encoding.JSON if kind == _JSON else Encoding.BINARY
    message = Broadcast(topic.removeprefix(PREFIX), private, event, body, encoding)
    if not await _may_send(subject, message.topic, private):
        raise _Answer(403, {"message": "Unauthorized"})
    if persist:
        await store_async(message)
    else:
        await send(message)
    return HttpResponse(status=202)


def _as_sent(request: HttpRequest, topic: str, event: str) -> tuple[str, str]:
    """Topic and event, split where the sender did: a slash in a name is sent as `%2F`. Django's
    path is decoded and does not show the difference; in it the last `/events/` splits them."""
    if not isinstance(request, ASGIRequest):
        return topic, event
    # Servers may leave it out.
    path: bytes = request.scope.get("raw_path") or b""
    sent = unquote(path.rpartition(_EVENTS.encode())[2].decode("latin-1"))
    names, ending = f"{topic}{_EVENTS}{event}", f"{_EVENTS}{sent}"
    # Something rewrote one of the paths and not the other: Django's path counts.
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
        return await in_database_thread(
            credentials.authenticate,
            credential,
            api_keys=settings.API_KEYS,
            allow_anonymous=settings.ALLOW_ANONYMOUS,
        )
    except TokenError as error:
        logger.info("broadcast refused: %s", error, extra={"action": "broadcast_refused"})
        raise _Answer(401, {"message": "Unauthorized"}) from None


# The quotas of HTTP senders. Under WSGI several threads use them.
_lock = threading.Lock()
_known: tuple[conf.Settings, Quotas] | None = None


def _spend_quota(request: HttpRequest, subject: Subject, messages: int) -> None:
    """Take these messages from the quotas of the sender's address and user; the service role has
    none."""
    global _known
    if subject.role == SERVICE_ROLE:
        return
    settings, now = conf.current(), time.monotonic()
    with _lock:
        if _known is None or _known[0] is not settings:
            _known = (settings, Quotas(Rates.of(settings.LIMITS)))
        held = []
        if address := request.META.get("REMOTE_ADDR", ""):
            held.append(_known[1].address(address, now))
        if subject.user_id is not None:
            held.append(_known[1].subject(str(subject.user_id), now))
        scope = QuotaChain(*held).broadcast(now, messages)
    if scope:
        if isinstance(request, ASGIRequest):
            hub().counters.limits[f"broadcasts_per_second/{scope}"] += 1
        raise _Answer(429, {"message": WireError.TOO_MANY_MESSAGES.text()})


async def _may_send(subject: Subject, topic: str, private: bool) -> bool:
    if not private:
        return not conf.current().PRIVATE_ONLY
    return (await in_database_thread(lambda: Planner().rights(subject, topic))).send


def _body(request: HttpRequest) -> bytes:
    most = conf.current().LIMITS.frame_bytes
    try:
        body = request.body
    except RequestDataTooBig:
        raise _Answer(413, {"message": "The body is too large"}) from None
    if most is not None and len(body) > most:
        raise _Answer(413, {"message": f"The body is too large: at most {most} bytes"})
    return body


def _read(text: bytes, decode: Callable[[bytes], Any]) -> Any:
    try:
        # All of it, also what `decode` skips: every receiver must be able to read it.
        check_json(text, "The body")
        return decode(text)
    except FrameError as error:
        raise _Answer(400, {"message": str(error)}) from None
    except msgspec.ValidationError as error:
        raise _Answer(422, {"errors": {"body": [str(error)]}}) from None


def _flag(request: HttpRequest, name: str) -> bool:
    return request.GET.get(name, "").lower() in ("true", "1")


def _too_large(body: bytes) -> dict[str, list[str]]:
    most = conf.current().LIMITS.payload_bytes
    if most is None or len(body) <= most:
        return {}
    return {"payload": ["Payload size exceeds tenant limit"]}


def _messages(body: bytes) -> list[Broadcast]:
    given = _read(body, _decode_batch)
    if "messages" not in given:
        raise _Answer(422, {"errors": {"messages": [_BLANK]}})
    try:
        items = _decode_list(given["messages"])
    except msgspec.MsgspecError:
        raise _Answer(422, {"errors": {"messages": ["is not a list"]}}) from None
    read = [_message(item) for item in items]
    errors = [{} if isinstance(found, Broadcast) else found for found in read]
    if any(errors):
        raise _Answer(422, {"errors": {"messages": errors}})
    return [found for found in read if isinstance(found, Broadcast)]


def _message(item: msgspec.Raw) -> Broadcast | dict[str, list[str]]:
    """One message of a batch, or its errors by field."""
    try:
        fields = _decode_batch(item)
    except msgspec.MsgspecError:
        return {"message": ["is not an object"]}
    errors: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for name in ("topic", "event", "private", "id"):
        values[name] = _decode_any(fields[name]) if name in fields else None
    for name in ("topic", "event"):
        if values[name] in (None, "", PREFIX):
            errors[name] = [_BLANK]
        elif not isinstance(values[name], str):
            errors[name] = ["is not a string"]
    if values["private"] not in (None, True, False):
        errors["private"] = ["is not true or false"]
    if values["id"] is not None and not _is_uuid(values["id"]):
        errors["id"] = ["is not a UUID"]
    payload = bytes(fields.get("payload", b"null"))
    if payload == b"null":
        errors["payload"] = [_BLANK]
    errors |= _too_large(payload)
    if errors:
        return errors
    topic = values["topic"].removeprefix(PREFIX)
    private = bool(values["private"])
    return Broadcast(topic, private, values["event"], payload, Encoding.JSON, id=values["id"] or "")


def _is_uuid(value: object) -> bool:
    try:
        UUID(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True
