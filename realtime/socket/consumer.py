"""The consumer: admits a socket or refuses it, and serves an admitted one as a `Connection`.

It has no channel on the layer and does not use Channels' `dispatch`, which changes to a thread for
every message.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from weakref import WeakKeyDictionary

from channels.consumer import AsyncConsumer
from django.conf import settings as django_settings

from auth_rls.access.record_limit import RecordLimit
from realtime import conf
from realtime.process.hub import Hub, hub
from realtime.protocol.errors import CloseCode, WireError
from realtime.session.quotas import Quota
from realtime.socket.connection import Admission, AsgiReceive, AsgiSend, Connection
from realtime.socket.handshake import Refusal, admit, refuse
from realtime.util.database_threads import DATABASE_ERRORS
from realtime.util.network import network

logger = logging.getLogger("realtime.consumer")

# Refusals of one status that are logged as warnings, and in how many seconds.
_WARNINGS = 5
_WARNING_SECONDS = 60.0
_warnings: WeakKeyDictionary[Hub, RecordLimit] = WeakKeyDictionary()

_RESTARTING = (503, CloseCode.RESTART, WireError.RESTARTING.text())
_UNREACHABLE = (503, CloseCode.RESTART, "Error connecting to Realtime")
_TOO_OFTEN = (429, CloseCode.TOO_MANY, "Too many connections per second")
_TOO_MANY = (429, CloseCode.TOO_MANY, "Too many connected users")


class RealtimeConsumer(AsyncConsumer):
    """Serves the Supabase Realtime protocol on one socket."""

    async def __call__(self, scope: Any, receive: AsgiReceive, send: AsgiSend) -> None:
        await receive()  # websocket.connect
        here = hub()
        address = network(str((scope.get("client") or ("",))[0]))
        try:
            if here.draining:
                raise Refusal(*_RESTARTING)
            shared = _shared_quotas(here, address)
            _enter(here, address)
        except Refusal as refusal:
            await _refuse(here, refusal, scope, send)
            return
        try:
            await _serve(here, address, shared, scope, receive, send)
        finally:
            here.leave(address)


async def _serve(
    here: Hub,
    address: str,
    shared: tuple[Quota, ...],
    scope: Any,
    receive: AsgiReceive,
    send: AsgiSend,
) -> None:
    """Admit the socket and serve it, or refuse it."""
    settings = conf.current()
    subscriptions = here.dispatcher.subscriptions
    generation = subscriptions.rebinding.generation
    try:
        admitted = await admit(scope, settings, subscriptions.users)
        if here.draining:
            raise Refusal(*_RESTARTING)
    except Refusal as refusal:
        if refusal.status in (401, 403):
            here.counters.auth_failures["handshake"] += 1
        await _refuse(here, refusal, scope, send)
        return
    except DATABASE_ERRORS as error:
        # Without a database no token's user is known.
        logger.warning("handshake failed: %s", error, extra={"action": "handshake_failed"})
        await _refuse(here, Refusal(*_UNREACHABLE), scope, send)
        return
    await send({"type": "websocket.accept", "subprotocol": admitted.subprotocol})
    admission = Admission(admitted, generation, settings, shared, address)
    await Connection(here, admission, scope, send).serve(receive)


def _shared_quotas(here: Hub, address: str) -> tuple[Quota, ...]:
    """The quotas of the client's address, with a handshake taken from them. Raises Refusal.

    Behind a Unix socket there is no address, and clients have nothing in common.
    """
    if not address:
        return ()
    now = asyncio.get_running_loop().time()
    quota = here.quotas.address(address, now)
    if not quota.handshake(now):
        here.counters.limits["handshakes_per_second/address"] += 1
        raise Refusal(*_TOO_OFTEN)
    return (quota,)


def _enter(here: Hub, address: str) -> None:
    """Count the connection in. Raises Refusal where a limit is reached."""
    limits = conf.current().LIMITS
    limit = here.enter(address, limits.connections, limits.connections_per_address)
    if limit is not None:
        here.counters.limits[limit] += 1
        raise Refusal(*_TOO_MANY)


async def _refuse(here: Hub, refusal: Refusal, scope: Any, send: AsgiSend) -> None:
    _log_refusal(here, refusal, str((scope.get("client") or ("",))[0]))
    await refuse(refusal, scope, send, debug=django_settings.DEBUG)


def _log_refusal(here: Hub, refusal: Refusal, client: str) -> None:
    """Log a refusal, since a client often cannot show its reason. A client that tries without end
    must not fill the log."""
    limit = _warnings.setdefault(here, RecordLimit(_WARNINGS, _WARNING_SECONDS))
    suppressed = limit.admit(str(refusal.status), asyncio.get_running_loop().time())
    more = (
        f"; {suppressed} more with {refusal.status} since the last such line" if suppressed else ""
    )
    logger.log(
        logging.DEBUG if suppressed is None else logging.WARNING,
        "handshake of %s refused with %s: %s%s",
        client or "a client",
        refusal.status,
        refusal.text,
        more,
        extra={"action": "handshake_refused"},
    )
