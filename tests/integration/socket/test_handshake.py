"""Handshakes: which are refused and how that is said, sessions and origins among it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.test import Client as Browser

from realtime.protocol.errors import CloseCode
from tests.support.socket_client import Client, application, db
from tests.support.socket_users import user
from tests.support.tokens import token
from tests.support.waiting import PATIENCE_SECONDS
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


async def test_a_refused_handshake_says_so_before_the_upgrade() -> None:
    expired = token(1, ttl=-100)
    assert await Client(token=expired).refusal() == CloseCode.TOKEN_REFUSED
    assert await Client(apikey="sb_publishable_unknown").refusal() == CloseCode.TOKEN_REFUSED
    foreign = [(b"origin", b"https://evil.example"), (b"host", b"localhost")]
    assert await Client(headers=foreign).refusal() == CloseCode.ORIGIN_REFUSED


FOREIGN = [(b"origin", b"https://evil.example"), (b"host", b"localhost")]


@pytest.mark.parametrize(
    "query", [{"apikey": token("job", "service_role")}, {"token": token("x")}], ids=["key", "token"]
)
async def test_a_connection_with_a_key_or_token_may_come_from_any_origin(query: Any) -> None:
    client = await Client(headers=FOREIGN, **query).connect()
    assert (await client.join())["status"] == "ok"
    await client.close()


async def test_an_api_key_lets_a_page_of_any_origin_in(settings: Any) -> None:
    settings.REALTIME = {"API_KEYS": {"sb_publishable_t": "anon"}}
    client = await Client(headers=FOREIGN, apikey="sb_publishable_t").connect()
    await client.close()
    assert await Client(headers=FOREIGN, apikey="sb_other").refusal() == CloseCode.TOKEN_REFUSED
    assert await Client(headers=FOREIGN, apikey="").refusal() == CloseCode.ORIGIN_REFUSED


@pytest.mark.parametrize(
    "query", [{}, {"apikey": ""}, {"token": " "}], ids=["none", "empty", "space"]
)
async def test_a_session_opens_nothing_to_a_page_of_another_origin(query: Any) -> None:
    browser = Browser()
    await db(browser.force_login, await user("ada"))
    cookie = (b"cookie", f"sessionid={browser.cookies['sessionid'].value}".encode())
    assert await Client(headers=[*FOREIGN, cookie], **query).refusal() == CloseCode.ORIGIN_REFUSED


async def test_a_session_beside_a_key_does_not_count(settings: Any, granted: Any) -> None:
    settings.REALTIME = {"API_KEYS": {"sb_publishable_t": "anon"}}
    ada = await user("ada")
    await db(granted, "view_note", using={"owner": "$user.id"})
    browser = Browser()
    await db(browser.force_login, ada)
    cookie = (b"cookie", f"sessionid={browser.cookies['sessionid'].value}".encode())
    client = await Client(headers=[*FOREIGN, cookie], apikey="sb_publishable_t").connect()
    await client.listen()
    await db(Note.objects.create, owner=ada, title="hers")
    assert await client.silent()
    await client.close()


async def test_a_refused_handshake_is_plain_http_where_the_server_can() -> None:
    scope = {
        "type": "websocket",
        "path": "/realtime",
        "query_string": b"token=garbage",
        "headers": [],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    raw = ApplicationCommunicator(application, scope)
    await raw.send_input({"type": "websocket.connect"})
    start, body = await raw.receive_output(5), await raw.receive_output(5)
    assert start["status"] == 401
    assert json.loads(body["body"]) == {"error": "The token provided is not a valid JWT"}
    await raw.wait()


async def test_with_debug_a_page_reads_in_the_close_reason_why_it_is_refused(settings: Any) -> None:
    settings.DEBUG = True
    client = await Client(headers=FOREIGN, token="garbage").connect()
    assert await client.raw.receive_output(PATIENCE_SECONDS) == {
        "type": "websocket.close",
        "code": CloseCode.TOKEN_REFUSED,
        "reason": "The token provided is not a valid JWT",
    }
    # A program reads the answer to its handshake.
    assert await Client(token="garbage").refusal() == CloseCode.TOKEN_REFUSED


async def test_a_browser_with_a_session_and_its_own_origin_is_that_user(granted: Any) -> None:
    ada = await user("ada")
    await db(granted, "view_note", using={"owner": "$user.id"})
    browser = Browser()
    await db(browser.force_login, ada)
    cookie = f"sessionid={browser.cookies['sessionid'].value}".encode()
    headers = [(b"cookie", cookie), (b"host", b"localhost")]
    client = await Client(headers=[*headers, (b"origin", b"http://localhost")]).connect()
    await client.listen()
    stranger = await Client(headers=headers).connect()  # no Origin: the session does not count
    await stranger.listen()
    await db(Note.objects.create, owner=ada, title="mine")
    assert (await client.change())["record"]["title"] == "mine"
    assert await stranger.silent()
    await client.close()
    await stranger.close()


async def test_a_connection_too_many_is_refused_and_a_place_that_is_left_is_free(
    settings: Any,
) -> None:
    settings.REALTIME = {"LIMITS": {"connections": 1}}
    first = await Client().connect()
    assert await Client().refusal() == CloseCode.TOO_MANY
    await first.close()
    second = await Client().connect()
    await second.close()


async def test_a_refused_handshake_is_a_warning_that_says_why_and_a_flood_of_them_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", logger="realtime.consumer")
    for _ in range(20):
        assert await Client(token="x.y.z").refusal() == 4401
    refused = [r for r in caplog.records if getattr(r, "action", "") == "handshake_refused"]
    warnings = [record for record in refused if record.levelname == "WARNING"]
    assert len(refused) == 20 and 1 <= len(warnings) <= 5
    assert "refused with 401: The token provided is not a valid JWT" in warnings[0].getMessage()
    assert "x.y.z" not in caplog.text
