"""The part of an internet address by which clients are told apart.

Pure.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache


# A handshake asks more than once.
@lru_cache(maxsize=256)
def network(address: str) -> str:
    """The part of an address that one party has: of IPv6 the first 64 bits, since one host can use
    all addresses below them. A text that is no address is returned unchanged."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
