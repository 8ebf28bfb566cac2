"""One request, to receivers with good and with bad manners."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from realtime.webhooks.addresses import Allowed
from realtime.webhooks.answer import Answer
from realtime.webhooks.destination import read_allowed, read_url
from realtime.webhooks.post import Address, Bounds, post
from tests.support.receivers import (
    Behaviour,
    Receiver,
    certificate,
    endless,
    receiving,
    saying,
    silent,
)

HERE = read_allowed(["127.0.0.0/8"])
SHORT = Bounds(connect=10.0, total=0.3, body=0.2)
AMPLE = Bounds(connect=30.0, total=30.0, body=0.2)


async def send(
    receiver: Receiver, bounds: Bounds = AMPLE, url: str | None = None, **more: Any
) -> Answer:
    destination = read_url(url or receiver.url)
    return await post(destination, {"x-own": "a"}, b'{"a":1}', HERE, bounds=bounds, **more)


def at(*addresses: str) -> Any:
    """A lookup of names that gives these addresses."""

    async def look_up(host: str, port: int) -> Sequence[Address]:
        found: list[Address] = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            found.append((family, (address, port)))
        return found

    return look_up


async def test_a_request_is_posted_with_its_headers_and_its_body() -> None:
    async with receiving(204) as receiver:
        answer = await send(receiver)
    assert answer.delivered and answer.status == 204 and answer.seconds > 0
    (request,) = receiver.received
    assert request.target == "/hook?t=1" and request.body == b'{"a":1}'
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["x-own"] == "a" and request.headers["content-length"] == "7"


async def test_an_answer_is_kept_up_to_a_bound() -> None:
    text = f"HTTP/1.1 500 No\r\nretry-after: 7\r\n\r\n{'why ' * 10_000}"
    async with receiving(saying(text)) as receiver:
        answer = await send(receiver)
    assert answer.status == 500 and answer.retry_after == 7.0
    assert answer.excerpt.startswith("why why") and len(answer.excerpt) == 1_000


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as other:
        text = f"HTTP/1.1 307 Away\r\nlocation: {other.url}\r\ncontent-length: 0\r\n\r\n"
        async with receiving(saying(text)) as receiver:
            answer = await send(receiver)
        assert answer.status == 307 and not answer.delivered and not other.connections


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (silent, "no answer within"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"x", 0.01), "no answer within"),
        (endless(b"", b"HTTP/1.1 103 Early\r\n\r\n", 0.01), "no answer within"),
    ],
)
async def test_a_receiver_that_does_not_come_to_an_answer_is_left(
    behaviour: Behaviour, said: str
) -> None:
    async with receiving(behaviour) as receiver:
        answer = await send(receiver, SHORT)
    assert answer.status is None and said in answer.error


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (saying(b""), "closed before an answer"),
        (saying(b"HTTP/1.1 200 O"), "not HTTP"),
        (saying(b"220 mail.example ESMTP\r\n"), "not HTTP"),
        (saying(b"\x00" * 64 + b"\r\n\r\n"), "not HTTP"),
        (endless(b"HTTP/1.1 200 OK\r\nx: ", b"a" * 1_000), "not HTTP"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"x: a\r\n" * 100), "not HTTP"),
        (endless(b"", b"HTTP/1.1 103 Early\r\n\r\n" * 100), "head of the answer does not end"),
    ],
)
async def test_an_answer_that_is_none_is_a_failure_that_says_so(
    behaviour: Behaviour, said: str
) -> None:
    async with receiving(behaviour) as receiver:
        answer = await send(receiver)
    assert answer.status is None and said in answer.error


async def test_what_is_told_of_an_answer_that_is_none_has_a_bound() -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"\x00" * 15_000 + b"\r\n\r\n"
    async with receiving(saying(head)) as receiver:
        answer = await send(receiver)
    assert "not HTTP" in answer.error and len(answer.error) <= 1_000


@pytest.mark.parametrize(
    "behaviour",
    [
        endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000),
        endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.01),
        endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.01),
        saying(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf"),
        saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
    ],
)
async def test_the_status_decides_whatever_becomes_of_the_body(behaviour: Behaviour) -> None:
    async with receiving(behaviour) as receiver:
        answer = await send(receiver)
    assert answer.delivered and len(answer.excerpt) <= 1_000


async def test_a_port_where_nobody_listens_is_a_failure() -> None:
    async with receiving() as receiver:
        pass
    answer = await send(receiver)
    assert answer.status is None and "the connection failed" in answer.error


async def test_a_receiver_that_is_not_reached_is_left() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    # Its queue is full, so the system answers no more connections.
    waiting = [socket.socket() for _ in range(3)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
    try:
        answer = await send(
            Receiver(), Bounds(connect=0.2, total=30.0), f"http://127.0.0.1:{port}/"
        )
    finally:
        for each in (*waiting, listener):
            each.close()
    assert answer.status is None and "no connection within" in answer.error


async def test_the_connection_goes_to_the_address_that_was_checked_with_the_name_in_it() -> None:
    async with receiving() as receiver:
        url = f"http://Hooks.example:{receiver.port}/"
        answer = await send(receiver, url=url, look_up=at("127.0.0.1"))
    assert answer.delivered
    assert receiver.received[0].headers["host"] == f"hooks.example:{receiver.port}"


async def test_a_name_with_one_address_that_is_refused_is_refused() -> None:
    async with receiving() as receiver:
        for addresses in (["127.0.0.1", "10.0.0.1"], ["::ffff:10.0.0.1"], ["169.254.169.254"]):
            url = f"http://hooks.example:{receiver.port}/"
            answer = await send(receiver, url=url, look_up=at(*addresses))
            assert answer.status is None and "WEBHOOK_ALLOW" in answer.error
        assert not receiver.connections


async def test_nothing_is_sent_unencrypted_to_what_the_setting_does_not_name() -> None:
    destination = read_url("http://hooks.example/")
    answer = await post(destination, {}, b"", HERE, look_up=at("8.8.8.8"))
    assert "https" in answer.error
    answer = await post(destination, {}, b"", Allowed(), look_up=at("8.8.8.8"))
    assert "https" in answer.error


async def test_names_that_are_not_found_are_told() -> None:
    async def fails(host: str, port: int) -> Sequence[Address]:
        raise socket.gaierror(-2, "not known")

    for look_up in (fails, at()):
        answer = await send(Receiver(), url="https://hooks.example/", look_up=look_up)
        assert answer.error == "the name hooks.example cannot be found"


async def test_proxies_of_the_environment_are_not_used(monkeypatch: Any) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    async with receiving() as receiver:
        assert (await send(receiver)).delivered


async def test_a_certificate_is_verified_for_the_name(tmp_path: Path, monkeypatch: Any) -> None:
    tls, path = certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(path))

    async def trust() -> ssl.SSLContext:
        return trusted

    async with receiving(tls=tls) as receiver:
        url = f"https://hooks.example:{receiver.port}/"
        answer = await send(receiver, url=url, look_up=at("127.0.0.1"))
        assert "certificate of hooks.example is not accepted" in answer.error
        good = await send(receiver, url=url, look_up=at("127.0.0.1"), trust=trust)
        assert good.delivered
        other = f"https://other.example:{receiver.port}/"
        bad = await send(receiver, url=other, look_up=at("127.0.0.1"), trust=trust)
        assert "certificate of other.example is not accepted" in bad.error
    assert len(receiver.received) == 1


async def test_a_port_without_tls_is_told() -> None:
    async with receiving(saying(b"hello")) as receiver:
        receiver.scheme = "https"
        # Its server waits for HTTP, and gets a handshake.
        answer = await send(receiver, Bounds(connect=0.3, total=30.0))
    assert answer.status is None and answer.error


async def test_many_requests_run_at_once() -> None:
    async with receiving(silent) as slow, receiving() as quick:
        waiting = [asyncio.create_task(send(slow)) for _ in range(20)]
        assert (await send(quick)).delivered
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
