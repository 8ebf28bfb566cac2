"""Origins: who may connect from where, and who may bring a session."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from realtime.socket.origin import REFUSED, TOKENS_ONLY, TRUSTED, OriginRule, Verdict


@pytest.fixture(autouse=True)
def hosts(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["example.com", ".shop.example", "[::1]"]
    settings.DEBUG = False


def judge(
    origin: str | None, *, allowed: Any = None, host: str = "example.com", **others: str
) -> Verdict:
    headers = [(b"host", host.encode())]
    headers += [(name.encode().replace(b"_", b"-"), text.encode()) for name, text in others.items()]
    if origin is not None:
        headers.append((b"Origin", origin.encode("latin-1")))
    return OriginRule.from_settings(allowed).judge(headers)


def test_a_request_without_origin_passes_but_brings_no_session() -> None:
    assert judge(None) == TOKENS_ONLY


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "http://example.com",
        "https://example.com:8443",
        "https://EXAMPLE.com",
        "https://example.com.",
        "https://shop.example",
        "https://a.b.shop.example",
        "http://[::1]:8000",
    ],
)
def test_an_origin_on_an_allowed_host_is_trusted(origin: str) -> None:
    assert judge(origin) == TRUSTED


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://example.com.evil.example",
        "https://notexample.com",
        "https://xshop.example",
        "https://evil.example/example.com",
        "https://example.com@evil.example",
        "https://user@example.com",
        "https://example.com/",
        "https://example.com/path",
        "https://example.com?x",
        "https://example.com#x",
        "https://example.com:port",
        "https://example.com:999999",
        "https://example.com evil",
        "https://example.com\n",
        "https://exämple.com",
        "example.com",
        "//example.com",
        "https://",
        "",
        "null",
        "file://",
        "capacitor://example.com",
        "javascript://example.com",
        "*",
    ],
)
def test_any_other_origin_is_refused_with_one_line_that_names_it(origin: str, caplog: Any) -> None:
    assert judge(origin) == REFUSED
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert repr(origin) in record.getMessage()
    assert "ALLOWED_ORIGINS" in record.getMessage()


def test_two_origins_are_none(caplog: Any) -> None:
    rule = OriginRule.from_settings()
    pair = [(b"origin", b"https://example.com"), (b"origin", b"https://example.com")]
    assert rule.judge(pair) == REFUSED
    assert len(caplog.records) == 1


def test_a_long_origin_does_not_fill_the_log(caplog: Any) -> None:
    judge("https://" + "x" * 10_000)
    assert len(caplog.records[0].getMessage()) < 400


def test_what_is_accepted_leaves_no_line(caplog: Any) -> None:
    judge("https://example.com")
    judge(None)
    assert not caplog.records


@pytest.mark.parametrize(
    ("entry", "origin", "verdict"),
    [
        ("https://app.test", "https://app.test", TRUSTED),
        ("https://APP.test", "https://app.test", TRUSTED),
        ("https://app.test", "https://app.test:443", TRUSTED),
        ("https://app.test:443", "https://app.test", TRUSTED),
        ("https://app.test", "http://app.test", REFUSED),
        ("https://app.test", "https://app.test:8443", REFUSED),
        ("https://app.test:8443", "https://app.test:8443", TRUSTED),
        ("https://app.test:8443", "https://app.test", REFUSED),
        ("https://app.test", "https://x.app.test", REFUSED),
        ("https://*.app.test", "https://x.y.app.test", TRUSTED),
        ("https://*.app.test", "https://app.test", REFUSED),
        ("https://*.app.test", "https://xapp.test", REFUSED),
        (".app.test", "http://x.app.test:99", TRUSTED),
        (".app.test", "https://app.test", TRUSTED),
        ("app.test", "http://app.test:99", TRUSTED),
        ("app.test", "https://x.app.test", REFUSED),
        ("app.test:99", "http://app.test:99", TRUSTED),
        ("app.test:99", "http://app.test", REFUSED),
        ("capacitor://localhost", "capacitor://localhost", TRUSTED),
        ("capacitor://localhost", "http://localhost", REFUSED),
        ("http://[::2]:80", "http://[::2]", TRUSTED),
        ("*", "https://evil.example", TOKENS_ONLY),
        ("*", "null", TOKENS_ONLY),
        ("null", "null", TOKENS_ONLY),
        ("null", "https://evil.example", REFUSED),
    ],
)
def test_listed_origins(entry: str, origin: str, verdict: Verdict) -> None:
    assert judge(origin, allowed=[entry]) == verdict


@pytest.mark.parametrize(
    "entry",
    ["https://app.test/", "https://app.test/x", "", "https://", "a b", "*app.test", "https://*", 7],
)
def test_an_entry_that_could_never_match_is_refused_with_an_example(entry: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="an origin is like"):
        OriginRule.from_settings([entry])


def test_a_string_instead_of_a_list_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="must be a list"):
        OriginRule.from_settings("https://app.test")


def test_any_host_lets_all_origins_in_but_trusts_only_its_own(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    assert judge("https://evil.example", host="example.com") == TOKENS_ONLY
    assert judge("https://example.com", host="example.com") == TRUSTED
    assert judge("https://example.com", host="EXAMPLE.com:443") == TRUSTED
    assert judge("http://example.com:8000", host="example.com:8000") == TRUSTED
    assert judge("http://example.com:8000", host="example.com:9000") == TOKENS_ONLY
    assert judge("http://example.com", host="example.com:8000") == TOKENS_ONLY
    assert judge("https://evil.example", host="") == TOKENS_ONLY
    assert judge("https://evil.example", host="example.com, evil.example") == TOKENS_ONLY


def test_the_forwarded_host_counts_only_where_django_believes_it(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    forwarded = {"x_forwarded_host": "example.com"}
    assert judge("https://example.com", host="inner:8000", **forwarded) == TOKENS_ONLY
    settings.USE_X_FORWARDED_HOST = True
    assert judge("https://example.com", host="inner:8000", **forwarded) == TRUSTED
    assert judge("https://example.com", host="example.com") == TRUSTED


def test_with_debug_and_no_hosts_this_machine_is_allowed(settings: Any) -> None:
    settings.ALLOWED_HOSTS = []
    assert judge("http://localhost:3000") == REFUSED
    settings.DEBUG = True
    for origin in ("http://localhost:3000", "http://x.localhost", "http://127.0.0.1:5173"):
        assert judge(origin) == TRUSTED
    assert judge("https://example.com") == REFUSED
