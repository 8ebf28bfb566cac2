"""The handshake: the subject of a connection, and the serializer it speaks.

Reads one ASGI scope and returns both, or raises a refusal with an HTTP status. Keeps no state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import msgspec

from auth_rls.subjects.sessions import SessionProof
from auth_rls.subjects.subject import Subject
from auth_rls.subjects.token_errors import TokenError
from realtime.conf import Settings
from realtime.delivery.server_adapter import answer_refusal, send_close
from realtime.protocol.errors import CloseCode
from realtime.protocol.serializer import FrameError, Version, negotiate
from realtime.socket import credentials
from realtime.socket.credentials import Kind
from realtime.socket.origin import OriginRule, is_secure, log_refusal
from realtime.subscriptions.known_users import KnownUsers

_SUBPROTOCOL = "phoenix"


class Refusal(Exception):
    """The connection is refused: an HTTP status, the same as a close code, and a text."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


@dataclass(frozen=True, slots=True)
class Admitted:
    """A connection that may be accepted. `token` is the token or key it came with, "" for none;
    `session` the Django session it came with."""

    subject: Subject
    session: SessionProof | None
    version: Version
    token: str
    subprotocol: str | None


async def admit(scope: dict[str, Any], settings: Settings, users: KnownUsers) -> Admitted:
    """Admit a handshake; `users` are those of the process. Raises Refusal, and what the database
    raises."""
    headers = scope.get("headers", [])
    query = scope.get("query_string", b"")
    verdict = OriginRule.from_settings(settings.ALLOWED_ORIGINS).judge(
        headers, secure=is_secure(scope.get("scheme", "ws"), headers)
    )
    try:
        version = negotiate(query_parameter(query, "vsn"))
    except FrameError as error:
        raise Refusal(400, 4400, str(error)) from None
    session = settings.SESSION_AUTH and verdict.trusts_session
    credential = credentials.from_handshake(headers, query, session=session)
    # A page of another site has no key or token, but the browser sends its cookies.
    if not verdict.allowed and credential.kind is not Kind.TOKEN:
        log_refusal(headers)
        raise Refusal(403, CloseCode.ORIGIN_REFUSED, "Origin is not allowed")
    try:
        found = await credentials.identify(
            credential,
            api_keys=settings.API_KEYS,
            allow_anonymous=settings.ALLOW_ANONYMOUS,
            users=users,
        )
    except TokenError as error:
        raise Refusal(401, CloseCode.TOKEN_REFUSED, error.handshake_reason) from None
    offered = scope.get("subprotocols", [])
    return Admitted(
        subject=found.subject,
        session=found.session,
        version=version,
        token=credential.value if credential.kind is Kind.TOKEN else "",
        subprotocol=_SUBPROTOCOL if _SUBPROTOCOL in offered else None,
    )


def query_parameter(query: bytes, name: str) -> str | None:
    """The first value of a parameter of a query string; None where there is none."""
    values = parse_qs(query.decode("latin-1")).get(name)
    return values[0] if values else None


async def refuse(
    refusal: Refusal,
    scope: dict[str, Any],
    send: Callable[[dict[str, Any]], Awaitable[None]],
    *,
    debug: bool = False,
) -> None:
    """Refuse before the upgrade: with status and JSON where the server is able to.

    No page can see that answer, only that its connection failed. With `debug` a page's connection
    is therefore accepted and closed at once, with the code and the reason.
    """
    if debug and any(name == b"origin" for name, _ in scope.get("headers", [])):
        await send({"type": "websocket.accept"})
        await send_close(send, refusal.code, refusal.text)
        return
    body = msgspec.json.encode({"error": refusal.text})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        answer_refusal(send, refusal.status, headers, body)
        await send({"type": "websocket.close", "code": refusal.code, "reason": refusal.text})
        return
    start = "websocket.http.response.start"
    await send({"type": start, "status": refusal.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
    # uvicorn logs an error if the application returns before the connection is closed, which
    # happens in the next iteration of the loop.
    await asyncio.sleep(0)
