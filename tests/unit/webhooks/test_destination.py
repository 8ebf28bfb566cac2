"""URLs of webhooks: what can be sent to, and in which spellings."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.webhooks.addresses import Allowed, refusal
from realtime.webhooks.destination import (
    BadUrl,
    check_destination,
    read_allowed,
    read_url,
)


def check(url: str, *allow: str) -> None:
    check_destination(read_url(url), read_allowed(allow))


def test_a_url_is_read_into_what_is_connected_to_and_what_is_sent() -> None:
    found = read_url("https://Hooks.Example.:8443/a/b?c=%20d")
    assert (found.scheme, found.host, found.port) == ("https", "hooks.example", 8443)
    assert found.target == "/a/b?c=%20d" and found.authority == "hooks.example:8443"
    assert read_url("https://hooks.example").target == "/"
    assert read_url("https://[2606:4700::1111]/x").authority == "[2606:4700::1111]"
    assert read_url("https://bücher.example/").host == "xn--bcher-kva.example"


def test_no_text_of_a_destination_has_its_path_where_tokens_stand() -> None:
    found = read_url("https://hooks.example/services/T0/secret?token=x")
    assert str(found) == "https://hooks.example"
    assert "secret" not in repr(found) and "token" not in repr(found)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "must begin with https://"),
        ("hooks.example", "must begin with https://"),
        ("ftp://hooks.example/", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("gopher://127.0.0.1:25/", "must begin with https://"),
        ("https:///path", "no host"),
        ("https://user:word@hooks.example/", "into the headers"),
        ("https://good.example@127.0.0.1/", "into the headers"),
        ("https://hooks.example\\@127.0.0.1/", "backslash"),
        ("https://hooks.example/\r\nX: y", "control character"),
        ("https://hooks.example/a b", "space"),
        ("https://hooks.example:0/", "port 0"),
        ("https://hooks.example:99999/", "malformed"),
        ("https://hooks.example:x/", "malformed"),
        ("https://[::1/", "malformed"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://[hooks.example]/", "in brackets|malformed"),
        ("https://hooks.example/#x", "fragment"),
        ("https://hooks.example/ü", "percent-encoded"),
        ("https://hooks..example/", "no name"),
        ("https://-hooks.example/", "no name"),
        ("https://hooks_.example%00/", "no name"),
        ("https://" + "a" * 64 + ".example/", "no name"),
        ("https://hooks.example/" + "a" * 2_000, "longer than"),
        ("https://0x7f.1/", "unusual spelling"),
        ("https://2130706433/", "unusual spelling"),
        ("https://017700000001/", "unusual spelling"),
        ("https://127.1/", "unusual spelling"),
        ("https://0177.0.0.1/", "unusual spelling"),
        ("https://127.0.0.1.5/", "unusual spelling"),
        ("https://0x7f000001/", "unusual spelling"),
        ("https://127。0。0。0x1/", "unusual spelling"),
    ],
)
def test_a_url_that_cannot_be_or_hides_where_it_leads_is_refused(url: str, said: str) -> None:
    with pytest.raises(BadUrl, match=said):
        read_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://127.0.0.1./",
        "https://127.0.0.1/",
        "https://①②⑦.⓪.⓪.①/",
        "https://[::]/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://a.localhost/",
        "https://100.64.0.1/",
    ],
)
def test_this_machine_and_private_networks_are_refused_in_every_spelling(url: str) -> None:
    with pytest.raises(BadUrl, match="WEBHOOK_ALLOW"):
        check(url)


def test_the_setting_allows_hosts_and_networks_also_without_tls() -> None:
    check("http://hooks.internal/", "hooks.internal")
    check("http://HOOKS.internal.:8000/", "Hooks.Internal")
    check("http://127.0.0.1:8000/", "127.0.0.1")
    check("http://localhost:8000/", "localhost")
    check("http://localhost:8000/", "127.0.0.0/8")
    check("http://10.1.2.3/", "10.0.0.0/8")
    check("http://[::1]:8000/", "::1")
    check("https://hooks.example/")


@pytest.mark.parametrize("allow", [(), ("other.internal",)])
def test_without_it_rows_are_sent_over_tls_alone(allow: tuple[str, ...]) -> None:
    with pytest.raises(BadUrl, match="https"):
        check("http://hooks.example/", *allow)


@pytest.mark.parametrize(
    "entry",
    ["", "http://hooks.internal", "hooks.internal:8000", "10.0.0.1/8", "10.0.0/8", "a b", 7],
)
def test_an_entry_of_the_setting_that_names_nothing_is_an_error(entry: object) -> None:
    with pytest.raises(ValueError, match=r"no (host|network)"):
        read_allowed([entry])


@given(st.text(max_size=40))
def test_a_host_is_read_or_refused_and_never_fails(host: str) -> None:
    try:
        found = read_url(f"https://{host}/")
    except BadUrl:
        return
    assert found.host.isascii() and found.host == found.host.lower()
    if found.is_address and refusal(found.host, Allowed()) is not None:
        with pytest.raises(BadUrl):
            check_destination(found, Allowed())


@given(st.text())
def test_any_text_is_a_url_or_not(text: str) -> None:
    with contextlib.suppress(BadUrl):
        read_url(text)
