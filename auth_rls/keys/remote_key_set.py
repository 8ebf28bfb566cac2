"""A JSON Web Key Set kept at a URL.

Owns fetching, caching and renewing it, in the thread that asks and never on an event loop. What
a key is and which token it suits is `keys.py`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import IO, Any, Final
from urllib.parse import urlsplit

from django.core.exceptions import SynchronousOnlyOperation

from auth_rls.keys.key_set import Key, KeySet, KeySetError

logger = logging.getLogger("auth_rls.jwks")

TTL_SECONDS: Final = 600.0
# Also how long an attacker who makes up key names waits between two fetches.
REFETCH_SECONDS: Final = 15.0
TIMEOUT_SECONDS: Final = 5.0
MAX_BYTES: Final = 262_144


class RemoteKeySet:
    """A key set at a URL, fetched in the calling thread when first needed.

    It is renewed after `TTL_SECONDS`, and sooner when a token names a key not in it, but never
    asked for more than once in `REFETCH_SECONDS`. One thread fetches; the others go on with the
    keys known so far, or wait where there are none. While the endpoint is down the last known
    keys serve. Raises ValueError for a URL that is neither https nor this machine's.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Callable[[str], bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_url(url)
        self.url = url
        self._fetch = fetch or _fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._known: KeySet | None = None
        self._fetched_at = float("-inf")
        self._asked_at = float("-inf")

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """As `KeySet.find`. Blocks on the network at times: raises SynchronousOnlyOperation on an
        event loop, KeySetError when the set was never fetched and cannot be now."""
        _refuse_on_event_loop()
        known = self._known
        if known is None:
            known = self._renew(wait=True)
        elif self._clock() - self._fetched_at >= TTL_SECONDS:
            known = self._renew(wait=False) or known
        if known is None:
            raise KeySetError(f"no key set could be fetched from {self.url}")
        key = known.find(kid, algorithm)
        if key is None:
            renewed = self._renew(wait=True)
            key = None if renewed is None else renewed.find(kid, algorithm)
        return key

    def _renew(self, *, wait: bool) -> KeySet | None:
        """The set after an attempt to fetch it, if one is due and no other thread is at it."""
        if not self._lock.acquire(blocking=wait):
            return self._known
        try:
            if self._clock() - self._asked_at < REFETCH_SECONDS:
                return self._known
            self._asked_at = self._clock()
            try:
                document = json.loads(self._fetch(self.url))
                fetched = KeySet.parse(document, secrets=False, skip_broken=True)
                if not fetched.keys:
                    raise KeySetError("it holds no key that checks signatures")
            except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
                self._failed(f"{type(error).__name__}: {error}")
            except KeySetError as error:
                self._failed(str(error))
            else:
                self._known = fetched
                self._fetched_at = self._clock()
            return self._known
        finally:
            self._lock.release()

    def _failed(self, why: str) -> None:
        serving = "no token can be checked" if self._known is None else "the last known keys serve"
        logger.warning(
            "JWKS_URL %s could not be read, %s: %s",
            self.url,
            serving,
            why,
            extra={"action": "jwks_unreadable"},
        )


def _refuse_on_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SynchronousOnlyOperation(
        "A token checked against JWKS_URL may wait for the network: call this from a thread, "
        "for example with asgiref.sync.sync_to_async."
    )


def check_url(url: str) -> None:
    """ValueError unless `url` is https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_local(parts.hostname):
        return
    raise ValueError(f"{url!r} is neither an https URL nor an http one on localhost")


def _is_local(host: str | None) -> bool:
    return host in {"localhost", "127.0.0.1", "::1"}


class _GuardedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where the first request could have gone as well."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(url: str) -> bytes:
    handlers: list[urllib.request.BaseHandler] = [_GuardedRedirects()]
    if _is_local(urlsplit(url).hostname):
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    # The socket timeout bounds one read; the deadline bounds a server that sends byte by byte.
    deadline = time.monotonic() + 2 * TIMEOUT_SECONDS
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as reply:
            return b"".join(_bounded(reply, deadline))
    except urllib.error.HTTPError as error:
        with error:
            raise KeySetError(f"it answered with status {error.code}") from None


def _bounded(reply: Any, deadline: float) -> Iterator[bytes]:
    size = 0
    while chunk := reply.read1(65_536):
        size += len(chunk)
        if size > MAX_BYTES:
            raise KeySetError(f"it is larger than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise KeySetError("it did not arrive in time")
        yield chunk
