"""Which addresses webhooks may be sent to."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.webhooks.addresses import Allowed, is_allowed, network_of, refusal

NOTHING = Allowed()
REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "no address",
    "",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700:4700::1111"]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert refusal(address, NOTHING)


@pytest.mark.parametrize("address", [*PUBLIC, "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_not_refused_also_mapped_and_behind_a_translator(address: str) -> None:
    assert refusal(address, NOTHING) is None


def test_a_network_in_the_setting_allows_its_addresses_and_no_others() -> None:
    allowed = Allowed(networks=(ip_network("10.0.0.0/8"), ip_network("::1")))
    assert refusal("10.1.2.3", allowed) is None
    assert refusal("::ffff:10.1.2.3", allowed) is None
    assert refusal("::1", allowed) is None
    assert refusal("127.0.0.1", allowed) and refusal("192.168.0.1", allowed)
    assert is_allowed("10.1.2.3", allowed) and not is_allowed("8.8.8.8", allowed)


def test_a_host_in_the_setting_does_not_lead_to_metadata_or_to_nobody() -> None:
    assert refusal("10.1.2.3", NOTHING, by_host=True) is None
    assert refusal("127.0.0.1", NOTHING, by_host=True) is None
    for address in ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254"):
        assert refusal(address, NOTHING, by_host=True)
    everything = Allowed(networks=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    assert refusal("169.254.169.254", everything) is None
    for address in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"):
        assert refusal(address, everything, by_host=True)


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_the_same_in_each_spelling(address: IPv4Address) -> None:
    plain = refusal(str(address), NOTHING)
    for prefix in ("::ffff:", "64:ff9b::"):
        assert refusal(f"{prefix}{address}", NOTHING) == plain
    if address.is_loopback or address.is_private or address.is_link_local:
        assert plain or str(address) in ("192.0.0.9", "192.0.0.10")


@given(st.ip_addresses(v=6))
def test_of_ipv6_only_what_is_given_to_anybody_is_sent_to(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    if number >> 125 != 0b001 and number >> 32 not in (0xFFFF, 0x64FF9B << 64 >> 32):
        known = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"))
        if not any(address in network for network in known):
            assert refusal(str(address), NOTHING)


def test_a_text_is_a_network_an_address_or_a_name() -> None:
    assert network_of("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert network_of("10.0.0.1") == ip_network("10.0.0.1/32")
    assert network_of("hooks.internal") is None
    with pytest.raises(ValueError, match="host bits"):
        network_of("10.0.0.1/8")
