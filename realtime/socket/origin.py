"""Which web origins may open a socket, and which may bring a session.

A browser sends cookies with a WebSocket to any site, and no CSRF token protects it. The Origin
header alone tells a page of this site from a page of another. Owns that decision, and the one log
line of each refusal. Reads no token.

A session counts from an origin whose host is in ALLOWED_HOSTS and whose scheme and port are those
connected to, and from one that CSRF_TRUSTED_ORIGINS or REALTIME["ALLOWED_ORIGINS"] lists. A request
without Origin is not a browser's: it may connect, and brings no session. "*" lets every origin
connect, and none of them brings a session.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.http import is_same_domain

logger = logging.getLogger("realtime.origin")

Headers = Iterable[tuple[bytes, bytes]]

_HOST: Final = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)"
_ORIGIN: Final = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_HOST}(?::(?P<port>[0-9]{{1,5}}))?")
_AUTHORITY: Final = re.compile(rf"{_HOST}(?::(?P<port>[0-9]{{1,5}}))?")
_PATTERN: Final = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?"
    r"(?P<host>\[[0-9a-f:.]+\]|(?:\*?\.)?[a-z0-9_-][a-z0-9_.-]*)(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# Django's own list for DEBUG with ALLOWED_HOSTS empty.
_DEBUG_HOSTS: Final = (".localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`allowed`: the connection may be accepted without a key or token. `trusts_session`: its
    session counts."""

    allowed: bool
    trusts_session: bool


REFUSED: Final = Verdict(allowed=False, trusts_session=False)
TOKENS_ONLY: Final = Verdict(allowed=True, trusts_session=False)
TRUSTED: Final = Verdict(allowed=True, trusts_session=True)


@dataclass(frozen=True, slots=True)
class _Origin:
    """The origin of a page. `port` is None if it is not given and the scheme has no default."""

    scheme: str
    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class _Listed:
    """One listed origin. An empty scheme and a port of None match any; a host with a
    leading dot matches its subdomains, and itself too when `or_itself`."""

    scheme: str
    host: str
    port: int | None
    or_itself: bool

    def matches(self, origin: _Origin) -> bool:
        if self.scheme and self.scheme != origin.scheme:
            return False
        # With a scheme, a port left out is that scheme's own; without one it is any.
        if self.port != origin.port and (self.scheme or self.port is not None):
            return False
        if not self.host.startswith("."):
            return origin.host == self.host
        return origin.host.endswith(self.host) or (self.or_itself and origin.host == self.host[1:])


@dataclass(frozen=True, slots=True)
class OriginRule:
    """The rule for one set of settings. Make one and keep it; it reads no settings later."""

    hosts: tuple[str, ...]
    listed: tuple[_Listed, ...] = ()
    any_host: bool = False
    any_origin: bool = False
    null_origin: bool = False
    forwarded_host: bool = False

    @classmethod
    def from_settings(cls, allowed_origins: Sequence[str] | None = None) -> OriginRule:
        """The rule of Django's settings and REALTIME["ALLOWED_ORIGINS"].

        Raises ImproperlyConfigured for an entry that could never match.
        """
        hosts = list(settings.ALLOWED_HOSTS)
        if not hosts and settings.DEBUG:
            hosts = list(_DEBUG_HOSTS)
        if isinstance(allowed_origins, str):
            raise ImproperlyConfigured('REALTIME["ALLOWED_ORIGINS"] must be a list of origins.')
        entries = tuple(allowed_origins or ())
        listed = [_listed(entry) for entry in entries if entry not in {"*", "null"}]
        # In Django a wildcard matches the domain itself too. Django's own check reports bad
        # entries.
        trusted = [
            replace(found, or_itself=found.host.startswith("."))
            for origin in settings.CSRF_TRUSTED_ORIGINS
            if (found := _found(origin)) is not None and found.scheme
        ]
        return cls(
            hosts=tuple(host.lower() for host in hosts if host != "*"),
            listed=(*listed, *trusted),
            any_host="*" in hosts,
            any_origin="*" in entries,
            null_origin="null" in entries,
            forwarded_host=settings.USE_X_FORWARDED_HOST,
        )

    def judge(self, headers: Headers, *, secure: bool = False) -> Verdict:
        """What a handshake with these headers may do; `secure`: it came over TLS."""
        pairs = [(name.lower(), value) for name, value in headers]
        sent = [value for name, value in pairs if name == b"origin"]
        if not sent:
            return TOKENS_ONLY
        text = b", ".join(sent).decode("latin-1")
        page = _origin(text)
        if page is not None and (self._serves(page, pairs, secure) or self._lists(page)):
            return TRUSTED
        # A sandboxed frame sends "null", whatever site wrote it: its session never counts.
        if self.any_host or self.any_origin or (self.null_origin and text == "null"):
            return TOKENS_ONLY
        return REFUSED

    def _lists(self, page: _Origin) -> bool:
        return any(entry.matches(page) for entry in self.listed)

    def _serves(self, page: _Origin, pairs: list[tuple[bytes, bytes]], secure: bool) -> bool:
        """Whether the page comes from this site: from an allowed host, with the scheme and port
        that it connects to. If ALLOWED_HOSTS allows any host, it must be the host it connects
        to."""
        scheme = "https" if secure else "http"
        asked = _first(pairs, b"host")
        if self.forwarded_host:
            asked = _first(pairs, b"x-forwarded-host") or asked
        here = _AUTHORITY.fullmatch(asked.lower())
        if here is None and asked:
            return False
        port = int(here["port"]) if here is not None and here["port"] else _DEFAULT_PORTS[scheme]
        if (page.scheme, page.port) != (scheme, port):
            return False
        if any(is_same_domain(page.host, pattern) for pattern in self.hosts):
            return True
        return self.any_host and here is not None and here["host"].rstrip(".") == page.host


def is_secure(scheme: str, headers: Headers) -> bool:
    """Whether a handshake came over TLS: by the scheme of its scope, or by what
    SECURE_PROXY_SSL_HEADER says of the proxy, as for Django's requests."""
    trusted = settings.SECURE_PROXY_SSL_HEADER
    if trusted is not None:
        variable, secure_value = trusted
        name = variable.removeprefix("HTTP_").replace("_", "-").lower().encode()
        sent = _first([(key.lower(), value) for key, value in headers], name)
        if sent:
            return bool(sent.partition(",")[0].strip() == secure_value)
    return scheme in ("wss", "https")


def log_refusal(headers: Headers) -> None:
    """Log that a handshake was refused for its origin."""
    sent = [value for name, value in headers if name.lower() == b"origin"]
    logger.warning(
        "WebSocket refused: origin %r is not of this site (ALLOWED_HOSTS, with the scheme and port "
        'connected to), nor in CSRF_TRUSTED_ORIGINS or REALTIME["ALLOWED_ORIGINS"], and it came '
        "without a key or token",
        b", ".join(sent).decode("latin-1")[:200],
        extra={"action": "origin_refused"},
    )


def _first(pairs: list[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in pairs if key == name), "")


def _origin(text: str) -> _Origin | None:
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        return None
    scheme = found["scheme"]
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS.get(scheme)
    return _Origin(scheme, found["host"].rstrip("."), port)


def _listed(entry: object) -> _Listed:
    found = _found(entry)
    if found is None:
        raise ImproperlyConfigured(
            f'REALTIME["ALLOWED_ORIGINS"] holds {entry!r}; an origin is like '
            '"https://app.example.com", "https://*.example.com" or "app.example.com:8443", '
            "without a path."
        )
    return found


def _found(entry: object) -> _Listed | None:
    found = _PATTERN.fullmatch(entry.lower()) if isinstance(entry, str) else None
    if found is None:
        return None
    scheme, host = found["scheme"] or "", found["host"]
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS.get(scheme)
    return _Listed(
        scheme=scheme,
        host=host.removeprefix("*"),
        port=port,
        or_itself=host.startswith("."),
    )
