"""Those who flood are refused and go on being served; nobody else notices."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import pytest
from django.test import AsyncClient

from realtime.process.hub import hub
from realtime.protocol.errors import CloseCode
from realtime.session.quotas import ADDRESS
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

FILTER = "title=in.(" + ",".join(f'"{n}{"x" * 30}"' for n in range(100)) + ")"


def client_at(address: str, **query: str) -> Client:
    client = Client(**query)
    client.raw.scope["client"] = (address, 1)
    return client


async def collect(client: Client, count: int) -> list[str]:
    """The titles of the next changes."""
    return [(await client.change())["record"]["title"] for _ in range(count)]


async def reasons(client: Client, refs: list[str]) -> set[str]:
    """Why these were refused, in whatever order the answers come; "" for those that were not."""
    waiting, found = set(refs), set()
    while waiting:
        frame = await client.receive()
        if frame[3] == "phx_reply" and frame[1] in waiting:
            waiting.remove(frame[1])
            found.add(frame[4]["response"].get("reason", ""))
    return found


async def joins(client: Client) -> list[str]:
    return [await client.push(f"realtime:{n}", "phx_join", {}) for n in range(120)]


async def tokens(client: Client) -> list[str]:
    return [
        await client.push(f"realtime:{n}", "phx_join", {"access_token": secrets.token_hex(40)})
        for n in range(120)
    ]


async def filters(client: Client) -> list[str]:
    table = {"event": "*", "schema": "public", "table": "zoo_note"}
    config = {"postgres_changes": [{**table, "filter": f"{FILTER},id=gt.{n}"} for n in range(100)]}
    return [await client.push(f"realtime:{n}", "phx_join", {"config": config}) for n in range(20)]


async def broadcasts(client: Client) -> list[str]:
    await client.join("realtime:noise", broadcast={"ack": True})
    return [
        await client.push("realtime:noise", "broadcast", {"event": "e", "payload": {}}, "1")
        for n in range(300)
    ]


TOO_MANY_JOINS = "ClientJoinRateLimitReached: Too many joins per second"
TOO_MANY_MESSAGES = "MessageRateLimitReached: Too many messages per second"
NO_TOKEN = "MalformedJWT: The token provided is not a valid JWT"


@pytest.mark.parametrize(
    ("flood", "answers"),
    [
        (joins, {"", TOO_MANY_JOINS}),
        (tokens, {NO_TOKEN, TOO_MANY_JOINS}),
        (filters, {"", TOO_MANY_JOINS}),
        (broadcasts, {"", TOO_MANY_MESSAGES}),
    ],
)
async def test_a_flood_is_answered_and_costs_a_good_client_nothing(
    granted: Any, settings: Any, flood: Any, answers: set[str]
) -> None:
    limits = {"joins_per_second": 1, "broadcasts_per_second": 1, "broadcast_burst": 20}
    settings.REALTIME = {"LIMITS": limits}
    await db(granted, "view_note")
    good, bad = await client_at("192.0.2.1").connect(), await client_at("192.0.2.2").connect()
    await good.listen()
    answered = asyncio.create_task(reasons(bad, await flood(bad)))
    for number in range(40):
        await db(Note.objects.create, title=f"n{number}")
    assert await collect(good, 40) == [f"n{number}" for number in range(40)]
    assert await answered == answers
    beat = await good.push("phoenix", "heartbeat", {})
    assert (await good.reply(beat))["status"] == "ok"
    assert hub().counters.limits.total() > 0
    # Refused by reply: who flooded is still connected, and a good client again.
    beat = await bad.push("phoenix", "heartbeat", {})
    assert (await bad.reply(beat))["status"] == "ok"
    await good.close()
    await bad.close()


async def test_who_reconnects_finds_the_same_limit_and_then_no_door(settings: Any) -> None:
    settings.REALTIME = {"LIMITS": {"joins_per_second": 0.001, "channels_per_connection": None}}
    # One at once for a connection, so many for its address.
    most = int(ADDRESS.joins.burst)
    granted = 0
    for _ in range(most):
        client = await client_at("192.0.2.9").connect()
        reply = await client.join("realtime:a")
        granted += reply["status"] == "ok"
        await client.close()
    assert granted == most
    assert await client_at("192.0.2.9").refusal() == CloseCode.TOO_MANY
    assert hub().counters.limits["handshakes_per_second/address"] == 1
    other = await client_at("192.0.2.10").connect()
    assert (await other.join("realtime:a"))["status"] == "ok"
    await other.close()


async def test_a_user_s_joins_are_counted_over_all_their_connections(settings: Any) -> None:

    settings.REALTIME = {"LIMITS": {"joins_per_second": 0.001}}
    hers = token("ada")
    answers = []
    for number in range(42):
        client = await client_at(f"192.0.2.{number}").connect()
        reply = await client.join("realtime:a", access_token=hers)
        answers.append(reply["response"].get("reason", "ok"))
        await client.close()
    assert answers == ["ok"] * 40 + ["ClientJoinRateLimitReached: Too many joins per second"] * 2
    assert hub().counters.limits["joins_per_second/subject"] == 2
    client = await client_at("192.0.2.200").connect()
    assert (await client.join("realtime:a", access_token=token("bob")))["status"] == "ok"
    await client.close()


async def test_a_flood_of_messages_ends_with_4429_and_others_are_served(granted: Any) -> None:
    await db(granted, "view_note")
    good, bad = await client_at("192.0.2.1").connect(), await client_at("192.0.2.2").connect()
    await good.listen()
    beat = json.dumps([None, None, "phoenix", "nonsense", {}])

    async def flood() -> None:
        # All of it waits at the server before it reads the first.
        for _ in range(30_000):
            bad.raw.input_queue.put_nowait({"type": "websocket.receive", "text": beat})

    await flood()
    await db(Note.objects.create, title="mine")
    assert await collect(good, 1) == ["mine"]
    assert await bad.until(lambda frame: isinstance(frame, int)) == CloseCode.TOO_MANY
    await auntil(lambda: hub().counters.closes["4429"] == 1)
    assert hub().counters.limits["messages_per_second/connection"] == 1
    await good.close()


async def test_what_a_client_sent_cannot_begin_a_line_of_the_log(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.REALTIME = {"PRIVATE_ONLY": True}
    caplog.set_level("INFO")
    client = await Client().connect()
    reply = await client.join("realtime:a\nERROR realtime: \x1b[31mforged\0")
    assert reply["status"] == "error"
    await client.close()
    (line,) = [record for record in caplog.records if "forged" in record.getMessage()]
    assert line.getMessage().isprintable()
    assert line.action == "refused"


class BrowserAt(AsyncClient):
    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def _base_scope(self, **request: Any) -> dict[str, Any]:
        return {**super()._base_scope(**request), "client": (self.address, 1)}


async def test_broadcasts_over_http_have_the_quota_of_their_address(settings: Any) -> None:
    keys = {"sb_secret_o": "service_role"}
    limits = {"broadcasts_per_second": 0.001, "broadcast_burst": 1}
    settings.REALTIME = {"LIMITS": limits, "API_KEYS": keys}
    message = {"topic": "a", "event": "e", "payload": {}}

    async def post(count: int, address: str, **headers: str) -> int:
        client = BrowserAt(address)
        response = await client.post(
            "/realtime/api/broadcast",
            {"messages": [message] * count},
            content_type="application/json",
            headers=headers,
        )
        return response.status_code

    # So many times what one connection may send at once.
    most = int(ADDRESS.broadcasts.burst)
    assert [await post(most - 40, "192.0.2.1") for _ in range(2)] == [202, 429]
    assert await post(40, "192.0.2.1") == 202
    assert await post(1, "192.0.2.1") == 429
    assert await post(1, "192.0.2.2") == 202
    assert await post(most + 1, "192.0.2.1", apikey="sb_secret_o") == 202
    assert hub().counters.limits["broadcasts_per_second/address"] == 2
