"""The internet addresses that webhooks may be sent to.

Public addresses alone, unless REALTIME["WEBHOOK_ALLOW"] names a host or a network: what a server
can reach and the outside cannot (its own ports, machines beside it, the metadata of its cloud) is
not for those who write a URL. The table is this project's own, because Python's `is_global` answers
differently from version to version.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# No entry of WEBHOOK_ALLOW allows these: no single host has them.
_OF_NO_HOST: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "an unspecified address"),
        ("224.0.0.0/4", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("::/128", "an unspecified address"),
        ("ff00::/8", "a multicast address"),
    )
)
# Allowed by a network in WEBHOOK_ALLOW and not by a host: who may change a name could lead there.
_BY_NETWORK: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("169.254.0.0/16", "a link-local address, which clouds give their metadata"),
        ("fe80::/10", "a link-local address"),
        ("100.100.100.200/32", "the metadata of a cloud"),
        ("168.63.129.16/32", "the metadata of a cloud"),
        ("192.0.0.192/32", "the metadata of a cloud"),
        ("fd00:ec2::/32", "the metadata of a cloud"),
        ("fd20:ce::/32", "the metadata of a cloud"),
    )
)
_OTHERS: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "an address of a carrier's own network"),
        ("127.0.0.0/8", "a loopback address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "an address for examples"),
        ("192.31.196.0/24", "a reserved address"),
        ("192.52.193.0/24", "a reserved address"),
        ("192.88.99.0/24", "a relay's address"),
        ("192.168.0.0/16", "a private address"),
        ("192.175.48.0/24", "a reserved address"),
        ("198.18.0.0/15", "an address for measurements"),
        ("198.51.100.0/24", "an address for examples"),
        ("203.0.113.0/24", "an address for examples"),
        ("240.0.0.0/4", "a reserved address"),
        ("::1/128", "a loopback address"),
        ("fc00::/7", "a private address"),
        ("2001::/32", "an address of a tunnel (Teredo)"),
        ("2001::/23", "a reserved address"),
        ("2001:db8::/32", "an address for examples"),
        ("2002::/16", "an address of a tunnel (6to4)"),
        ("2620:4f:8000::/48", "a reserved address"),
        ("3fff::/20", "an address for examples"),
    )
)
# Of IPv6, all that is given to anybody.
_GIVEN = IPv6Network("2000::/3")
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What WEBHOOK_ALLOW names: hosts, in lower case and ASCII, and networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def names(self, address: Address) -> bool:
        """Whether one of the networks has this address."""
        return any(
            address.version == network.version and address in network for network in self.networks
        )


def network_of(text: str) -> Network | None:
    """The network, or the single address, that a text names; None for any other text.

    Raises ValueError for a network with bits of a host, such as 10.0.0.1/8.
    """
    if "/" not in text:
        try:
            return ip_network(text)
        except ValueError:
            return None
    return ip_network(text)


def refusal(address: str, allowed: Allowed, *, by_host: bool = False) -> str | None:
    """Why nothing may be sent to this address, as words behind its text; None where it may be.

    `by_host`: its host is one of those that are allowed.
    """
    try:
        found = plain(ip_address(address.partition("%")[0]))
    except ValueError:
        return "no internet address"
    if (what := _among(found, _OF_NO_HOST)) is not None:
        return what
    if allowed.names(found):
        return None
    if (what := _among(found, _BY_NETWORK)) is not None:
        return what
    if by_host:
        return None
    if (what := _among(found, _OTHERS)) is not None:
        return what
    if isinstance(found, IPv6Address) and found not in _GIVEN:
        return "a reserved address"
    return None


def is_allowed(address: str, allowed: Allowed) -> bool:
    """Whether WEBHOOK_ALLOW names this address, or a network that has it."""
    try:
        return allowed.names(plain(ip_address(address.partition("%")[0])))
    except ValueError:
        return False


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, on this machine (mapped) or behind a
    translator (NAT64); else the address itself."""
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _among(address: Address, table: Iterable[tuple[Network, str]]) -> str | None:
    for network, what in table:
        if address.version == network.version and address in network:
            return what
    return None
