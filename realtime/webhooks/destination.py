"""The URL of a webhook, read once and strictly: what is connected to is what was checked.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

from realtime.webhooks.addresses import Allowed, is_allowed, network_of, refusal

MAX_URL = 2_000
"""Characters of a URL."""

_PORTS = {"http": 80, "https": 443}
# urlsplit drops some of these without a word.
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# By the last part a host is an address, however it is written: 0x7f.1, 2130706433, 127.1.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class BadUrl(ValueError):
    """The URL cannot be sent to; the text says why."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes. `host` is a name in lower case and ASCII or an address without
    brackets; `target` is the path with the query. The text of a destination has neither, because
    tokens stand there."""

    scheme: str
    host: str
    port: int
    target: str
    is_address: bool

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def __repr__(self) -> str:
        return f"<Destination {self}>"


def read_url(url: str) -> Destination:
    """The destination that a URL names. Makes no query. Raises BadUrl."""
    if len(url) > MAX_URL:
        raise BadUrl(f"The URL is longer than {MAX_URL} characters.")
    if _ODD.search(url):
        raise BadUrl("The URL has a space, a backslash or a control character.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadUrl("The URL cannot be read: its host or its port is malformed.") from None
    if parts.scheme not in _PORTS:
        raise BadUrl("The URL must begin with https:// (or http://, where that is allowed).")
    if "@" in parts.netloc:
        raise BadUrl("The URL has a user name or a password. Put credentials into the headers.")
    if port == 0:
        raise BadUrl("Nothing can be sent to port 0.")
    if not parts.hostname:
        raise BadUrl("The URL has no host.")
    host = _host(parts.hostname, bracketed="[" in parts.netloc)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii():
        raise BadUrl("The path of the URL has characters that must be percent-encoded.")
    if parts.fragment:
        raise BadUrl("The URL has a fragment (#…), which is never sent.")
    return Destination(
        scheme=parts.scheme,
        host=host,
        port=_PORTS[parts.scheme] if port is None else port,
        target=target,
        is_address=network_of(host) is not None,
    )


def read_allowed(entries: Iterable[object]) -> Allowed:
    """The hosts and networks of WEBHOOK_ALLOW. Raises ValueError, which names the entry."""
    hosts: set[str] = set()
    networks = []
    for entry in entries:
        if not isinstance(entry, str) or not entry:
            raise ValueError(f"{entry!r} is no host and no network.")
        try:
            network = network_of(entry)
        except ValueError as error:
            raise ValueError(f"{entry!r} is no network: {error}.") from None
        if network is not None:
            networks.append(network)
            continue
        try:
            hosts.add(_host(entry, bracketed=False))
        except BadUrl:
            raise ValueError(
                f"{entry!r} is no host and no network. Name a host without scheme and port "
                "('hooks.internal'), an address ('10.1.2.3') or a network ('10.0.0.0/8')."
            ) from None
    return Allowed(frozenset(hosts), tuple(networks))


def check_destination(destination: Destination, allowed: Allowed) -> None:
    """What can be told without a query of names. Raises BadUrl."""
    host = destination.host
    by_host = host in allowed.hosts
    if destination.is_address:
        what = refusal(host, allowed, by_host=by_host)
        if what is not None:
            raise BadUrl(f"{host} is {what}. {HOW_TO_ALLOW}")
    elif not by_host and (host == "localhost" or host.endswith(".localhost")):
        if not any(network.is_loopback for network in allowed.networks):
            raise BadUrl(f"{host} is this machine. {HOW_TO_ALLOW}")
        return
    if destination.scheme == "https" or by_host:
        return
    # A name may lead into one of the networks: that is seen when it is looked up.
    named = is_allowed(host, allowed) if destination.is_address else bool(allowed.networks)
    if not named:
        raise BadUrl(UNENCRYPTED)


HOW_TO_ALLOW = "REALTIME['WEBHOOK_ALLOW'] can name it."
"""Behind the reason why a host is refused."""

UNENCRYPTED = (
    "The URL must begin with https://. http:// is for hosts that REALTIME['WEBHOOK_ALLOW'] names."
)
"""The reason why a URL is refused that would send rows readable for all on the way."""


def _host(text: str, *, bracketed: bool) -> str:
    """A host in lower case and ASCII, without the dot at its end."""
    if bracketed:
        try:
            address = IPv6Address(text)
            if address.scope_id is not None:
                raise ValueError
            return str(address)
        except ValueError:
            raise BadUrl("The address in brackets is no IPv6 address, or has a zone.") from None
    try:
        name = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        raise BadUrl("The host is no name that can be looked up.") from None
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise BadUrl(
                "The host is an address in an unusual spelling. Write four numbers, as in "
                "192.0.2.10."
            ) from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadUrl("The host is no name that can be looked up.")
    return name
