"""A key set at a URL: fetched once, kept, renewed, and what happens while it cannot be."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from auth_rls import conf
from auth_rls.keys import remote_key_set
from auth_rls.keys.key_set import KeySetError
from auth_rls.subjects import tokens
from tests.support.signing import (
    BAD_SIGNATURE,
    KEY,
    NO_SIGNER,
    NOW,
    base64url,
    public_jwk,
    refusal,
    signed,
)
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("auth")


class Endpoint:
    """A key set on a real server: what it answers can be changed, what it was asked is counted."""

    def __init__(self) -> None:
        self.document: Any = {"keys": []}
        self.status = 200
        self.location = ""
        self.asked = 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.asked += 1
                body = endpoint.document
                if not isinstance(body, bytes):
                    body = json.dumps(body).encode()
                self.send_response(endpoint.status)
                if endpoint.location:
                    self.send_header("Location", endpoint.location)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Silent."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.server.serve_forever, args=(0.01,))
    thread.start()
    yield endpoint
    endpoint.server.shutdown()
    thread.join()
    endpoint.server.server_close()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_remote_set_is_fetched_once_and_kept(auth: Any, private: Any, endpoint: Any) -> None:
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "k")]}
    auth(JWT_ALGORITHMS=["ES256"], JWKS_URL=endpoint.url)
    for _ in range(3):
        assert tokens.verify(signed(key=private["ES256"], algorithm="ES256", kid="k"), now=NOW)
    assert endpoint.asked == 1


def test_an_unknown_key_name_is_refused_and_fetches_again_but_not_more_often_than_allowed(
    private: Any, endpoint: Any
) -> None:
    clock = Clock()
    remote = remote_key_set.RemoteKeySet(endpoint.url, clock=clock)
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "old")]}
    assert remote.find("old", "ES256") is not None
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "new")]}
    for _ in range(5):
        assert remote.find("new", "ES256") is None
    assert endpoint.asked == 1
    clock.now += remote_key_set.REFETCH_SECONDS
    until(lambda: remote.find("new", "ES256") is not None)
    assert remote.find("old", "ES256") is None
    assert endpoint.asked == 2


def test_a_set_grown_old_serves_while_it_is_fetched_again(private: Any, endpoint: Any) -> None:
    clock = Clock()
    remote = remote_key_set.RemoteKeySet(endpoint.url, clock=clock)
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "k")]}
    assert remote.find("k", "ES256") is not None
    clock.now += remote_key_set.TTL_SECONDS
    assert remote.find("k", "ES256") is not None
    until(lambda: endpoint.asked == 2)


def test_the_last_known_keys_serve_while_the_endpoint_is_down(
    private: Any, endpoint: Any, caplog: Any
) -> None:
    clock = Clock()
    remote = remote_key_set.RemoteKeySet(endpoint.url, clock=clock)
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "k")]}
    assert remote.find("k", "ES256") is not None
    endpoint.status = 503
    clock.now += remote_key_set.TTL_SECONDS
    for _ in range(3):
        assert remote.find("k", "ES256") is not None
    until(lambda: caplog.records)
    assert remote.find("k", "ES256") is not None
    assert endpoint.asked == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"JWKS_URL {endpoint.url} could not be read, the last known keys serve: "
        "it answered with status 503"
    ]


@pytest.mark.parametrize(
    "document",
    [b"", b"<html>", b"[]", b"\xff", b"[" * 100_000, {"keys": "x"}, {"keys": []}, b" " * 300_000],
    ids=["empty", "html", "list", "bytes", "deep", "no list", "no keys", "large"],
)
def test_what_is_no_key_set_leaves_tokens_unchecked(
    auth: Any, private: Any, endpoint: Any, document: Any
) -> None:
    endpoint.document = document
    auth(JWT_ALGORITHMS=["ES256"], JWKS_URL=endpoint.url)
    text = signed(key=private["ES256"], algorithm="ES256", kid="k")
    assert refusal(text) == NO_SIGNER
    assert refusal(text) == NO_SIGNER
    assert endpoint.asked == 1


def test_one_broken_key_does_not_spoil_a_remote_set(private: Any, endpoint: Any) -> None:
    good = public_jwk(private["ES256"], "ES256", "k")
    endpoint.document = {
        "keys": [7, {"kty": "RSA", "kid": "bad"}, {"kty": "EC", "crv": "P-256"}, {"kid": "x"}, good]
    }
    assert remote_key_set.RemoteKeySet(endpoint.url).find("k", "ES256") is not None


def test_a_remote_set_brings_no_shared_secrets(auth: Any, private: Any, endpoint: Any) -> None:
    secret = {"kty": "oct", "kid": "s", "k": base64url(b"x" * 40).decode()}
    endpoint.document = {"keys": [secret, public_jwk(private["ES256"], "ES256", "k")]}
    auth(JWT_ALGORITHMS=["ES256", "HS256"], JWKS_URL=endpoint.url)
    assert refusal(signed(key="x" * 40, kid="s")) == BAD_SIGNATURE
    assert endpoint.asked == 0


@pytest.mark.parametrize("location", ["http://jwks.example/", "file:///etc/passwd", "ftp://x/y"])
def test_a_redirect_to_an_unsafe_place_is_not_followed(endpoint: Any, location: str) -> None:
    endpoint.status, endpoint.location = 302, location
    with pytest.raises(KeySetError):
        remote_key_set.RemoteKeySet(endpoint.url).find("k", "RS256")
    assert endpoint.asked == 1


@pytest.mark.parametrize(
    "url", ["http://id.example/jwks", "file:///etc/passwd", "ftp://localhost/", "", "https://"]
)
def test_a_url_must_be_https_or_local(auth: Any, url: str) -> None:
    auth(JWT_ALGORITHMS=["RS256"], JWKS_URL=url)
    with pytest.raises(ImproperlyConfigured, match=r'AUTH_RLS\["JWKS_URL"\]'):
        conf.current()


def test_a_fetch_that_gets_no_thread_is_made_later(
    private: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    remote = remote_key_set.RemoteKeySet(endpoint.url, clock=clock)
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "one")]}

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(KeySetError):
            remote.find("one", "ES256")
    clock.now += remote_key_set.REFETCH_SECONDS
    assert remote.find("one", "ES256") is not None


def test_many_threads_share_one_fetch(private: Any) -> None:
    fetches: list[str] = []
    started, go_on = threading.Event(), threading.Event()

    def fetch(url: str) -> bytes:
        fetches.append(url)
        started.set()
        assert go_on.wait(10)
        return json.dumps({"keys": [public_jwk(private["ES256"], "ES256", "k")]}).encode()

    remote = remote_key_set.RemoteKeySet("https://id.example/jwks", fetch=fetch)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(remote.find("k", "ES256"))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(fetches) == 1
    assert len(found) == 5 and None not in found


class Hanging:
    """An endpoint that answers `document` at first, and then hangs until it is released."""

    def __init__(self, document: Any, answers: int = 1) -> None:
        self.document = json.dumps(document).encode()
        self.answers = answers
        self.fetches = 0
        self.released = threading.Event()

    def __call__(self, url: str) -> bytes:
        self.fetches += 1
        if self.fetches > self.answers:
            assert self.released.wait(30)
        return self.document


@pytest.fixture
def hanging(private: Any) -> Iterator[Hanging]:
    endpoint = Hanging({"keys": [public_jwk(private["ES256"], "ES256", "k")]})
    yield endpoint
    endpoint.released.set()


URL = "https://id.example/jwks"


def test_while_the_endpoint_hangs_known_keys_serve_and_unknown_ones_are_refused(
    hanging: Hanging,
) -> None:
    clock = Clock()
    remote = remote_key_set.RemoteKeySet(URL, fetch=hanging, clock=clock)
    assert remote.find("k", "ES256") is not None
    clock.now += remote_key_set.TTL_SECONDS
    for made_up in range(20):  # the test would hang here, were one of them to wait
        assert remote.find(f"made-up-{made_up}", "ES256") is None
        assert remote.find("k", "ES256") is not None
    until(lambda: hanging.fetches == 2)
    clock.now += remote_key_set.TTL_SECONDS
    assert remote.find("made-up", "ES256") is None
    assert hanging.fetches == 2  # the fetch that hangs is the only one
    hanging.released.set()
    until(lambda: remote.find("made-up", "ES256") is None and hanging.fetches == 3)


def test_before_the_first_set_a_token_waits_no_longer_than_allowed(hanging: Hanging) -> None:
    hanging.answers = 0
    remote = remote_key_set.RemoteKeySet(URL, fetch=hanging, first_seconds=0.01)
    for _ in range(3):
        with pytest.raises(KeySetError):
            remote.find("k", "ES256")
    assert hanging.fetches == 1
    hanging.released.set()
    until(lambda: _found(remote))


def _found(remote: remote_key_set.RemoteKeySet) -> bool:
    try:
        return remote.find("k", "ES256") is not None
    except KeySetError:
        return False


async def test_on_an_event_loop_nothing_waits_but_who_awaits_the_first_set(
    hanging: Hanging,
) -> None:
    hanging.answers = 0
    remote = remote_key_set.RemoteKeySet(URL, fetch=hanging)
    with pytest.raises(KeySetError):
        remote.find("k", "ES256")
    waiting = asyncio.ensure_future(remote.loaded())
    await asyncio.sleep(0)
    assert not waiting.done()
    hanging.released.set()
    await asyncio.wait_for(waiting, 30)
    assert remote.find("k", "ES256") is not None
    await remote.loaded()


async def test_a_first_set_that_does_not_come_is_awaited_for_a_bounded_time(
    hanging: Hanging,
) -> None:
    hanging.answers = 0
    remote = remote_key_set.RemoteKeySet(URL, fetch=hanging, first_seconds=0.01)
    await asyncio.wait_for(remote.loaded(), 30)
    with pytest.raises(KeySetError):
        remote.find("k", "ES256")


async def test_only_tokens_that_name_a_public_key_wait_for_the_first_set(settings: Any) -> None:
    settings.AUTH_RLS = {
        "JWT_KEY": KEY,
        "JWT_ALGORITHMS": ["HS256", "ES256"],
        "JWKS_URL": "http://localhost:9/jwks",
    }
    for text in (signed(), "garbage", "sb_x", "a.b.c", "x" * 20_000):
        await asyncio.wait_for(tokens.keys_loaded(text), 30)
    assert tokens.verify(signed(), now=NOW)
