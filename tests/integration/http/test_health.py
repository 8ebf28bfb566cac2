"""`GET /realtime/health`: 200 while changes reach clients, 503 when they do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import AsyncClient, Client, override_settings

from realtime.http import health
from realtime.models import Handler, WalEntry
from realtime.ops import handler_status, status
from realtime.ops.layer_probe import CachedProbe, Layer
from realtime.util.database_threads import close_connections
from realtime.wal.clock import now_us_sql
from tests.support.handler_rows import age, handler
from tests.support.log import number_all
from tests.support.socket_client import db
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")


@pytest.fixture(autouse=True)
async def fresh(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(health, "layer_probe", CachedProbe())
    with override_settings(REALTIME={"TAILER": "external"}):
        yield
    await close_connections()


async def ask(client: AsyncClient | None = None) -> tuple[int, Any]:
    response = await (client or AsyncClient()).get("/realtime/health")
    return response.status_code, response.json()


def lead() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE realtime_head SET leader = 'somebody', lease_until_us = "
            f"{now_us_sql(connection)} + 60000000"
        )


async def test_a_healthy_installation_says_so() -> None:
    await db(lead)
    assert await ask() == (
        200,
        {
            "status": "ok",
            "database": "ok",
            "layer": "in-memory",
            "tailer": {"lag_ms": 0, "backlog": 0, "leader": True},
            "handlers": {"stopped": 0, "stuck": 0},
        },
    )


async def test_entries_that_have_just_been_captured_are_no_outage() -> None:
    await db(Note.objects.create, title="a")
    code, body = await ask()
    assert code == 200
    assert body["tailer"]["backlog"] == 1
    assert body["tailer"]["leader"] is False


async def test_entries_that_nobody_numbers_are_an_outage() -> None:
    await db(Note.objects.create, title="a")
    await db(WalEntry.objects.update, captured_us=1)
    code, body = await ask()
    assert (code, body["status"]) == (503, "down")
    assert body["database"] == "ok"
    await db(lead)
    code, body = await ask()
    assert (code, body["status"]) == (200, "ok")


async def test_an_embedded_tailer_needs_no_socket_to_start(closing_hub: None) -> None:
    await db(Note.objects.create, title="a")
    await db(WalEntry.objects.update, captured_us=1)
    with override_settings(REALTIME={"TAILER": "embedded"}):

        async def healthy() -> bool:
            return (await ask())[0] == 200

        await auntil(healthy, "a leader")
        code, body = await ask()
    assert (code, body["tailer"]["backlog"]) == (200, 0)


async def test_a_database_that_is_away_is_an_outage_told_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any) -> None:
        raise OperationalError("connection to 10.1.2.3 as user admin failed")

    monkeypatch.setattr(status, "read_numbering", fail)
    response = await AsyncClient().get("/realtime/health")
    assert response.status_code == 503
    assert response.json() == {
        "status": "down",
        "database": "down",
        "layer": "in-memory",
        "tailer": {"lag_ms": None, "backlog": None, "leader": None},
        "handlers": None,
    }


async def test_a_layer_that_is_down_degrades_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def down() -> Layer:
        return Layer("down", error="redis://:secret@10.0.0.1 refused")

    now = 1000.0
    monkeypatch.setattr(health, "layer_probe", CachedProbe(down, clock=lambda: now))
    code, body = await ask()
    assert (code, body["status"], body["layer"]) == (200, "degraded", "down")
    now += 31
    code, body = await ask()
    assert (code, body["status"]) == (503, "down")
    assert "secret" not in str(body)


async def test_it_is_not_cached_and_may_only_be_read() -> None:
    response = await AsyncClient().get("/realtime/health")
    assert "no-store" in response["Cache-Control"]
    assert (await AsyncClient().post("/realtime/health")).status_code == 405
    assert (await AsyncClient().head("/realtime/health")).status_code == 200


def test_it_answers_under_wsgi_too() -> None:
    assert Client().get("/realtime/health").status_code == 200


async def test_a_handler_that_stopped_degrades_and_is_not_named() -> None:
    await db(lead)
    await db(handler, "invoices", stopped="failed")
    await db(handler, "search", paused=True)
    code, body = await ask()
    assert (code, body["status"]) == (200, "degraded")
    assert body["handlers"] == {"stopped": 1, "stuck": 0}


async def test_a_handler_that_does_not_move_although_it_should_degrades() -> None:
    await db(lead)
    await db(Note.objects.create, title="a")
    await db(number_all)
    await db(handler, "invoices")
    assert (await ask())[1]["handlers"] == {"stopped": 0, "stuck": 0}
    await db(age, 600)
    code, body = await ask()
    assert (code, body["status"]) == (200, "degraded")
    assert body["handlers"] == {"stopped": 0, "stuck": 1}
    await db(Handler.objects.update, paused=True)
    assert (await ask())[1]["status"] == "ok"


async def test_a_handler_with_nothing_to_read_is_not_stuck_however_long_it_waits() -> None:
    await db(lead)
    await db(Note.objects.create, title="a")
    await db(number_all)
    await db(handler, "invoices", seq=1)
    await db(age, 600)
    assert (await ask())[1]["status"] == "ok"


async def test_health_is_told_without_the_table_of_handlers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As between the start of new code and its migrations."""

    def fail(*args: Any) -> None:
        raise OperationalError("no such table: realtime_handler")

    monkeypatch.setattr(handler_status, "read_trouble", fail)
    await db(lead)
    code, body = await ask()
    assert (code, body["status"], body["handlers"]) == (200, "ok", None)
