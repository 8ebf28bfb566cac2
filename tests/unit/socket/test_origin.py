"""Origins: who may connect from where, and who may bring a session."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from realtime.socket.origin import (
    REFUSED,
    TOKENS_ONLY,
    TRUSTED,
    OriginRule,
    Verdict,
    is_secure,
    log_refusal,
)


@pytest.fixture(autouse=True)
def hosts(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["example.com", ".shop.example", "[::1]"]
    settings.DEBUG = False


def judge(
    origin: str | None,
    *,
    allowed: Any = None,
    host: str = "example.com",
    secure: bool = True,
    **others: str,
) -> Verdict:
    headers = [(b"host", host.encode())]
    headers += [(name.encode().replace(b"_", b"-"), text.encode()) for name, text in others.items()]
    if origin is not None:
        headers.append((b"Origin", origin.encode("latin-1")))
    return OriginRule.from_settings(allowed).judge(headers, secure=secure)


def test_a_request_without_origin_passes_but_brings_no_session() -> None:
    assert judge(None) == TOKENS_ONLY


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("https://example.com", "example.com", True),
        ("https://example.com", "example.com:443", True),
        ("https://example.com:443", "example.com", True),
        ("http://example.com", "example.com", False),
        ("https://example.com:8443", "example.com:8443", True),
        ("https://EXAMPLE.com", "example.com", True),
        ("https://example.com.", "example.com", True),
        ("https://shop.example", "example.com", True),
        ("https://a.b.shop.example", "shop.example", True),
        ("http://[::1]:8000", "[::1]:8000", False),
        ("https://example.com", "", True),
    ],
)
def test_an_allowed_host_is_trusted_with_the_scheme_and_port_connected_to(
    origin: str, host: str, secure: bool
) -> None:
    assert judge(origin, host=host, secure=secure) == TRUSTED


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("http://example.com", "example.com", True),
        ("https://example.com", "example.com", False),
        ("https://example.com:8443", "example.com", True),
        ("https://example.com", "example.com:8443", True),
        ("http://example.com:443", "example.com", True),
        ("https://example.com:80", "example.com", False),
        ("http://[::1]:3000", "[::1]:8000", False),
        ("https://example.com", "example.com:port", True),
        ("https://example.com", "example.com, example.com", True),
    ],
)
def test_an_allowed_host_on_another_scheme_or_port_is_another_site(
    origin: str, host: str, secure: bool
) -> None:
    assert judge(origin, host=host, secure=secure) == REFUSED


@pytest.mark.parametrize(
    ("entry", "origin", "verdict"),
    [
        ("https://app.test", "https://app.test", TRUSTED),
        ("https://app.test", "http://app.test", REFUSED),
        ("https://app.test", "https://app.test:8443", REFUSED),
        ("https://app.test:8443", "https://app.test:8443", TRUSTED),
        ("https://*.app.test", "https://x.app.test", TRUSTED),
        ("https://*.app.test", "https://app.test", TRUSTED),
        ("https://*.app.test", "https://x.app.test:8443", REFUSED),
        ("https://*.app.test", "https://xapp.test", REFUSED),
        ("app.test", "https://app.test", REFUSED),
        ("https://app.test/x", "https://app.test", REFUSED),
    ],
)
def test_origins_that_django_trusts_with_forms_are_trusted(
    settings: Any, entry: str, origin: str, verdict: Verdict
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = [entry]
    assert judge(origin) == verdict


@pytest.mark.parametrize(
    ("scheme", "header", "secure"),
    [
        ("ws", None, False),
        ("wss", None, True),
        ("https", None, True),
        ("ws", "https", True),
        ("ws", "https, http", True),
        ("ws", "http", False),
        ("wss", "http", False),
    ],
)
def test_the_scheme_is_what_a_trusted_proxy_says(
    settings: Any, scheme: str, header: str | None, secure: bool
) -> None:
    headers = [] if header is None else [(b"X-Forwarded-Proto", header.encode())]
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert is_secure(scheme, headers) is secure
    settings.SECURE_PROXY_SSL_HEADER = None
    assert is_secure(scheme, headers) is (scheme in ("wss", "https"))


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
def test_any_other_origin_is_refused(origin: str) -> None:
    assert judge(origin) == REFUSED


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "https://example.com\n"])
def test_a_refusal_is_one_line_that_names_the_origin(origin: str, caplog: Any) -> None:
    log_refusal([(b"host", b"example.com"), (b"Origin", origin.encode())])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert repr(origin) in record.getMessage()
    assert "ALLOWED_ORIGINS" in record.getMessage()


def test_two_origins_are_none() -> None:
    rule = OriginRule.from_settings()
    pair = [(b"origin", b"https://example.com"), (b"origin", b"https://example.com")]
    assert rule.judge(pair, secure=True) == REFUSED


def test_a_long_origin_does_not_fill_the_log(caplog: Any) -> None:
    log_refusal([(b"origin", b"https://" + b"x" * 10_000)])
    assert len(caplog.records[0].getMessage()) < 500


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
    plain = {"secure": False}
    assert judge("http://example.com:8000", host="example.com:8000", **plain) == TRUSTED
    assert judge("http://example.com:8000", host="example.com:9000", **plain) == TOKENS_ONLY
    assert judge("http://example.com", host="example.com:8000", **plain) == TOKENS_ONLY
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
    here = {"host": "localhost:8000", "secure": False}
    assert judge("http://localhost:8000", **here) == REFUSED
    settings.DEBUG = True
    for origin in ("http://localhost:8000", "http://x.localhost:8000", "http://127.0.0.1:8000"):
        assert judge(origin, **here) == TRUSTED
    assert judge("http://localhost:3000", **here) == REFUSED
    assert judge("https://example.com", **here) == REFUSED
