"""Which web origins may open a socket.

A browser sends cookies with a WebSocket to any site and no CSRF token guards it, so the Origin
header is all that tells one's own page from somebody else's. Owns that decision and the one log
line each refusal leaves. Never looks at tokens.

The rule: a request without Origin comes from no browser and may pass, but brings no session. An
origin passes when its host is in ALLOWED_HOSTS, when it is listed in REALTIME["ALLOWED_ORIGINS"],
or when it is the very host and port asked for. A lone "*" lets every origin in, and trusts none
of them with a session.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    """`allowed`: the connection may go on. `trusts_session`: its cookies may be believed."""

    allowed: bool
    trusts_session: bool


REFUSED: Final = Verdict(allowed=False, trusts_session=False)
TOKENS_ONLY: Final = Verdict(allowed=True, trusts_session=False)
TRUSTED: Final = Verdict(allowed=True, trusts_session=True)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page or a socket lives. `port` None: not said and no default known."""

    scheme: str
    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class _Listed:
    """One entry of ALLOWED_ORIGINS. An empty scheme and a port of None match any; a host with a
    leading dot matches its subdomains, and itself too when `or_itself`."""

    scheme: str
    host: str
    port: int | None
    or_itself: bool

    def matches(self, place: _Place) -> bool:
        if self.scheme and self.scheme != place.scheme:
            return False
        # With a scheme, a port left out is that scheme's own; without one it is any.
        if self.port != place.port and (self.scheme or self.port is not None):
            return False
        if not self.host.startswith("."):
            return place.host == self.host
        return place.host.endswith(self.host) or (self.or_itself and place.host == self.host[1:])


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

        ImproperlyConfigured for an entry that could never match.
        """
        hosts = list(settings.ALLOWED_HOSTS)
        if not hosts and settings.DEBUG:
            hosts = list(_DEBUG_HOSTS)
        if isinstance(allowed_origins, str):
            raise ImproperlyConfigured('REALTIME["ALLOWED_ORIGINS"] must be a list of origins.')
        entries = tuple(allowed_origins or ())
        return cls(
            hosts=tuple(host.lower() for host in hosts if host != "*"),
            listed=tuple(_listed(entry) for entry in entries if entry not in {"*", "null"}),
            any_host="*" in hosts,
            any_origin="*" in entries,
            null_origin="null" in entries,
            forwarded_host=settings.USE_X_FORWARDED_HOST,
        )

    def judge(self, headers: Headers) -> Verdict:
        """What may be done with a handshake that came with these headers. Logs a refusal."""
        pairs = [(name.lower(), value) for name, value in headers]
        sent = [value for name, value in pairs if name == b"origin"]
        if not sent:
            return TOKENS_ONLY
        text = b", ".join(sent).decode("latin-1")
        place = _place(text)
        if place is not None and (self._knows(place) or self._serves(place, pairs)):
            return TRUSTED
        # A sandboxed frame says "null", whoever wrote it: listing it cannot mean to trust it.
        if self.any_host or self.any_origin or (self.null_origin and text == "null"):
            return TOKENS_ONLY
        logger.warning(
            "WebSocket refused: origin %r is neither in ALLOWED_HOSTS nor in "
            'REALTIME["ALLOWED_ORIGINS"]',
            text[:200],
            extra={"action": "origin_refused"},
        )
        return REFUSED

    def _knows(self, place: _Place) -> bool:
        # ALLOWED_HOSTS speaks of web sites: another scheme's "localhost" is not ours.
        if place.scheme in _DEFAULT_PORTS and any(
            is_same_domain(place.host, pattern) for pattern in self.hosts
        ):
            return True
        return any(entry.matches(place) for entry in self.listed)

    def _serves(self, place: _Place, pairs: list[tuple[bytes, bytes]]) -> bool:
        """Whether the page comes from the very host and port it now connects to. That counts
        only where ALLOWED_HOSTS takes any host; where it lists them, `_knows` has answered."""
        if not self.any_host or place.scheme not in _DEFAULT_PORTS:
            return False
        asked = _first(pairs, b"host")
        if self.forwarded_host:
            asked = _first(pairs, b"x-forwarded-host") or asked
        found = _AUTHORITY.fullmatch(asked.lower())
        if found is None:
            return False
        port = int(found["port"]) if found["port"] else _DEFAULT_PORTS[place.scheme]
        return found["host"].rstrip(".") == place.host and port == place.port


def _first(pairs: list[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in pairs if key == name), "")


def _place(text: str) -> _Place | None:
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        return None
    scheme = found["scheme"]
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS.get(scheme)
    return _Place(scheme, found["host"].rstrip("."), port)


def _listed(entry: object) -> _Listed:
    found = _PATTERN.fullmatch(entry.lower()) if isinstance(entry, str) else None
    if found is None:
        raise ImproperlyConfigured(
            f'REALTIME["ALLOWED_ORIGINS"] holds {entry!r}; an origin is like '
            '"https://app.example.com", "https://*.example.com" or "app.example.com:8443", '
            "without a path."
        )
    scheme, host = found["scheme"] or "", found["host"]
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS.get(scheme)
    return _Listed(
        scheme=scheme,
        host=host.removeprefix("*"),
        port=port,
        or_itself=host.startswith("."),
    )
