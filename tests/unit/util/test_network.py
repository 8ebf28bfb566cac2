"""Of an IPv6 address the network counts."""

from __future__ import annotations

import pytest

from realtime.util.network import network


@pytest.mark.parametrize(
    ("address", "party"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
        ("", ""),
    ],
)
def test_of_an_ipv6_address_the_network_counts(address: str, party: str) -> None:
    assert network(address) == party
