"""A JSON Web Key Set kept at a URL.

Owns fetching, keeping and renewing it, in a thread of its own. What a key is, and which tokens it
may check, is decided in `key_set`.
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
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import IO, Any, Final
from urllib.parse import urlsplit

from auth_rls import forks
from auth_rls.keys.key_set import Key, KeySet, KeySetError

logger = logging.getLogger("auth_rls.jwks")

TTL_SECONDS: Final = 600.0
# Also the time between two fetches that an attacker who invents key names can cause.
REFETCH_SECONDS: Final = 15.0
# How long one read from the endpoint may take; a fetch may take twice that.
TIMEOUT_SECONDS: Final = 5.0
# How long the first tokens of a process wait for the first set.
FIRST_SECONDS: Final = 5.0
MAX_BYTES: Final = 262_144


class RemoteKeySet:
    """A key set at a URL, fetched by a thread of its own when a token first needs it.

    It is fetched again after `TTL_SECONDS`, and sooner when a token names a key that is not in it,
    but not more often than once in `REFETCH_SECONDS`. Meanwhile tokens are checked with the keys
    known so far: those of known keys never wait, those of unknown keys are refused. While the
    endpoint is down the last known keys serve. Raises ValueError for a URL that is neither https
    nor on this machine.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Callable[[str], bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
        first_seconds: float = FIRST_SECONDS,
    ) -> None:
        check_url(url)
        self.url = url
        self._fetch = fetch or _fetch
        self._clock = clock
        self._first_seconds = first_seconds
        self._lock = threading.Lock()
        self._known: KeySet | None = None
        self._fetched_at = float("-inf")
        self._asked_at = float("-inf")
        self._fetching: Future[None] | None = None
        _all.add(self)

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """As `KeySet.find`. Raises KeySetError while no set has been fetched.

        A call only waits before the first set is known, for at most `first_seconds` from the
        beginning of the fetch, and never on an event loop; await `loaded` there.
        """
        known = self._known
        if known is None:
            known = self._first()
            if known is None:
                raise KeySetError(f"no key set could be fetched from {self.url}")
        elif self._clock() - self._fetched_at >= TTL_SECONDS:
            self._renew()
        key = known.find(kid, algorithm)
        if key is None:
            self._renew()
        return key

    async def loaded(self) -> None:
        """Return when a set is known, when fetching it has failed, or after `first_seconds`."""
        fetching = None if self._known is not None else self._renew()
        if fetching is not None:
            await asyncio.wait({asyncio.wrap_future(fetching)}, timeout=self._first_seconds)

    def begin_anew(self) -> None:
        """In a forked process: a fetch by the parent's thread does not end here."""
        self._lock = threading.Lock()
        self._fetching = None
        self._asked_at = float("-inf")

    def _first(self) -> KeySet | None:
        fetching = self._renew()
        if fetching is not None and not _on_event_loop():
            waited = self._clock() - self._asked_at
            wait({fetching}, timeout=max(self._first_seconds - waited, 0.0))
        return self._known

    def _renew(self) -> Future[None] | None:
        """Begin a fetch if one is due. Returns the running fetch, if there is one."""
        with self._lock:
            if self._fetching is not None:
                return self._fetching
            if self._clock() - self._asked_at < REFETCH_SECONDS:
                return None
            self._asked_at = self._clock()
            self._fetching = Future()
            self._fetching.set_running_or_notify_cancel()
            # Daemonic: an endpoint that hangs does not keep the process from ending.
            thread = threading.Thread(
                target=self._run, args=(self._fetching,), name="rowcast-jwks", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                # The process may have no more threads now. A fetch that never ran would keep
                # every later one away.
                self._fetching = None
                self._failed(str(error))
            return self._fetching

    def _run(self, fetching: Future[None]) -> None:
        try:
            document = json.loads(self._fetch(self.url))
            fetched = KeySet.parse(document, secrets=False, skip_broken=True)
            if not fetched.keys:
                raise KeySetError("it holds no key that checks signatures")
            self._known, self._fetched_at = fetched, self._clock()
        except KeySetError as error:
            self._failed(str(error))
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._fetching = None
            fetching.set_result(None)

    def _failed(self, why: str) -> None:
        serving = "no token can be checked" if self._known is None else "the last known keys serve"
        logger.warning(
            "JWKS_URL %s could not be read, %s: %s",
            self.url,
            serving,
            why,
            extra={"action": "jwks_unreadable"},
        )


_all: weakref.WeakSet[RemoteKeySet] = weakref.WeakSet()


def _begin_anew() -> None:
    for key_set in tuple(_all):
        key_set.begin_anew()


forks.in_child(_begin_anew)


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def check_url(url: str) -> None:
    """Raises ValueError unless `url` is https, or http on this machine."""
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
