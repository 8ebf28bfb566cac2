"""The senders of HTTP broadcasts, and their quotas.

A sender is a subject at an address. Bytes are charged before they are read, messages before they
are sent. The service role is the operator's own and has no quota.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest

from auth_rls import forks
from auth_rls.subjects.subject import SERVICE_ROLE, Subject
from realtime import conf
from realtime.process.hub import hub
from realtime.session.quotas import QuotaChain, Quotas, Rates
from realtime.topics.broadcast import Broadcast
from realtime.util.network import network

# Bodies up to this size are read on the event loop, which takes less time than a change of threads.
_SMALL_BYTES = 16_384
# The most larger bodies of one address that are being read or wait to be read.
_MOST_READING = 4

T = TypeVar("T")
# One thread: however many large bodies come, reading them takes at most one core.
_reading = ThreadPoolExecutor(1, thread_name_prefix="rowcast-posted")
_reading_of: Counter[str] = Counter()

# Under WSGI several threads use the quotas.
_lock = threading.Lock()
_known: tuple[conf.Settings, Quotas] | None = None


def _begin_anew() -> None:
    global _lock, _reading
    _lock = threading.Lock()
    _reading = ThreadPoolExecutor(1, thread_name_prefix="rowcast-posted")
    _reading_of.clear()


forks.in_child(_begin_anew)


class OverLimit(Exception):
    """A quota has too little left."""


class Sender:
    """One request's sender."""

    def __init__(self, request: HttpRequest, subject: Subject) -> None:
        self.subject = subject
        self._counted = isinstance(request, ASGIRequest)
        self._address = network(request.META.get("REMOTE_ADDR", ""))

    def spend_bytes(self, size: int) -> None:
        """Take the bytes of a body. Raises OverLimit."""
        self._spend("posted_bytes", lambda chain, now: chain.post(now, size))

    def spend_messages(self, count: int) -> None:
        """Take broadcasts. Raises OverLimit."""
        self._spend("broadcasts_per_second", lambda chain, now: chain.broadcast(now, count))

    def sign(self, message: Broadcast) -> Broadcast:
        """The message with its sender's user id, if it goes to a private topic."""
        if not message.private or self.subject.user_id is None:
            return message
        return msgspec.structs.replace(message, user_id=str(self.subject.user_id))

    async def read(self, body: bytes, read: Callable[[], T]) -> T:
        """The result of `read`, which reads this body. A large body is read in a thread. Raises
        OverLimit when several of this address are being read already."""
        if len(body) <= _SMALL_BYTES or not self._counted:
            return read()
        if _reading_of[self._address] >= _MOST_READING:
            self._note("posts_at_once/address")
            raise OverLimit
        _reading_of[self._address] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(_reading, read)
        finally:
            _reading_of[self._address] -= 1
            if not _reading_of[self._address]:
                del _reading_of[self._address]

    def _spend(self, limit: str, take: Callable[[QuotaChain, float], str]) -> None:
        if self.subject.role == SERVICE_ROLE:
            return
        now = time.monotonic()
        with _lock:
            scope = take(self._chain(now), now)
        if scope:
            self._note(f"{limit}/{scope}")
            raise OverLimit

    def _chain(self, now: float) -> QuotaChain:
        global _known
        settings = conf.current()
        if _known is None or _known[0] is not settings:
            _known = (settings, Quotas(Rates.of(settings.LIMITS)))
        quotas = []
        if self._address:
            quotas.append(_known[1].address(self._address, now))
        if self.subject.user_id is not None:
            quotas.append(_known[1].subject(str(self.subject.user_id), now))
        return QuotaChain(*quotas)

    def _note(self, limit: str) -> None:
        if self._counted:
            hub().counters.limits[limit] += 1
