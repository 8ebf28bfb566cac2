"""Sockets are told when nothing comes of their table any more, and when changes come again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest
from django.db import OperationalError, connection, models

from realtime import publish
from realtime.process.capture_monitor import CaptureMonitor
from realtime.process.hub import hub
from realtime.util.database_threads import close_connections
from realtime.wal import obstacles, triggers
from tests.support.captured_models import withdraw
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.support.vendors import on_postgresql
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

TABLE = "CREATE TABLE zoo_thing (id integer PRIMARY KEY, name text)"


def sql(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def made(*statements: str) -> None:
    sql(*statements)
    triggers.reconcile()


def lose_triggers() -> None:
    """Of this one table, as a program does that rebuilds it."""
    if connection.vendor == "sqlite":
        sql("ALTER TABLE zoo_thing RENAME TO zoo_old", TABLE, "DROP TABLE zoo_old")
    else:
        sql("DROP TABLE zoo_thing CASCADE", TABLE)


@pytest.fixture
async def thing() -> AsyncIterator[type[models.Model]]:
    """A published table of this test's own."""
    options = {"app_label": "zoo", "db_table": "zoo_thing", "managed": False}
    body = {"__module__": "tests.zoo.models", "Meta": type("Meta", (), options)}
    body |= {"name": models.TextField(null=True), "id": models.IntegerField(primary_key=True)}
    model: type[models.Model] = type("Thing", (models.Model,), body)
    publish(model)
    await db(made, TABLE)
    yield model
    withdraw(model)
    model._meta.apps.all_models["zoo"].pop("thing")
    model._meta.apps.clear_cache()
    await db(sql, "DROP TABLE IF EXISTS zoo_thing")
    await db(triggers.reconcile)
    await db(obstacles.look, "default")


async def listening(connect: Callable[..., Any], **binding: Any) -> Client:
    client: Client = await connect(token=token("job", role="service_role"))
    await client.listen(**{"table": "zoo_thing", **binding})
    client.unread.clear()
    return client


async def told(client: Client) -> tuple[str, str]:
    """The status and the text of the next `system` message."""
    frame = await client.until(lambda f: f[3] == "system")
    return frame[4]["status"], frame[4]["message"]


async def looks(times: int = 1) -> None:
    for _ in range(times):
        await hub().capture.look()


async def works_again(client: Client) -> None:
    """After what was missing is there again."""
    await looks()
    assert await told(client) == ("ok", "Subscribed to PostgreSQL")
    assert await told(client) == ("ok", "resync required")
    await db(sql, "INSERT INTO zoo_thing VALUES (7, 'again')")
    assert (await client.change())["record"] == {"id": 7, "name": "again"}


@pytest.mark.parametrize("binding", [{}, {"filter": "name=neq.x"}, {"live": True}])
async def test_subscribers_are_told_of_a_dropped_table_and_of_its_return(
    thing: Any, connect: Callable[..., Any], binding: dict[str, Any]
) -> None:
    client = await listening(connect, **binding)
    await db(sql, "DROP TABLE zoo_thing")
    await looks()
    status, message = await told(client)
    assert status == "error"
    assert "nothing can come of zoo_thing: the table does not exist" in message
    # Once, and no word of a subscription that works.
    await looks(2)
    assert await client.silent()
    await db(made, TABLE)
    await works_again(client)


async def test_subscribers_of_a_whole_schema_are_told_of_one_table(
    thing: Any, connect: Callable[..., Any]
) -> None:
    client = await listening(connect, table="*")
    await db(sql, "DROP TABLE zoo_thing")
    await looks()
    status, message = await told(client)
    assert (status, "nothing can come of zoo_thing" in message) == ("error", True)
    # The other tables go on.
    assert await told(client) == ("ok", "Subscribed to PostgreSQL")
    note = await db(Note.objects.create, title="other")
    assert (await client.change())["record"]["id"] == note.pk
    await db(made, TABLE)
    await works_again(client)


async def test_subscribers_are_told_of_lost_triggers_after_a_look_that_failed(
    thing: Any, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await listening(connect)
    await looks()
    await db(lose_triggers)

    def fail(alias: str) -> set[str]:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(triggers, "uncaptured", fail)
        await looks()
    await looks(2)
    assert "its triggers are missing" in (await told(client))[1]


async def test_subscribers_are_told_of_lost_triggers_and_joins_are_refused(
    thing: Any, connect: Callable[..., Any]
) -> None:
    client = await listening(connect)
    await db(lose_triggers)
    await looks(2)
    status, message = await told(client)
    assert status == "error"
    assert "nothing can come of zoo_thing: its triggers are missing" in message
    other = await connect(token=token("job", role="service_role"))
    asked = {"event": "*", "schema": "public", "table": "zoo_thing"}
    await other.join(postgres_changes=[asked])
    assert "its triggers are missing" in (await told(other))[1]
    await db(triggers.reconcile)
    await works_again(client)


@on_postgresql
async def test_subscribers_are_told_of_a_namesake_in_another_schema(
    thing: Any, connect: Callable[..., Any]
) -> None:
    client = await listening(connect)
    await db(sql, "CREATE SCHEMA tenant", "CREATE TABLE tenant.zoo_thing (LIKE zoo_thing)")
    try:
        await db(sql, "ALTER ROLE CURRENT_USER SET search_path = tenant, public")
        # As connections have it that are opened from now on.
        await close_connections()
        await looks()
        status, message = await told(client)
        assert status == "error"
        assert "tables of this name are in several schemas" in message
    finally:
        await db(sql, "ALTER ROLE CURRENT_USER RESET search_path", "DROP SCHEMA tenant CASCADE")
        await close_connections()
    await works_again(client)


async def test_triggers_that_are_away_while_a_migration_runs_are_not_reported(thing: Any) -> None:
    reported: list[Collection[str]] = []
    monitor = CaptureMonitor("default", lambda: True, reported.append)
    await monitor.look()
    await db(lose_triggers)
    await monitor.look()
    await db(triggers.reconcile)
    await monitor.look()
    assert reported == []
    await db(lose_triggers)
    await monitor.look()
    await monitor.look()
    assert reported == [{"zoo_thing"}]


async def test_other_channels_are_told_nothing(thing: Any, connect: Callable[..., Any]) -> None:
    client = await listening(connect)
    bystander = await connect(token=token("job", role="service_role"))
    await bystander.listen("zoo_note")
    await db(sql, "DROP TABLE zoo_thing")
    await looks()
    assert (await told(client))[0] == "error"
    assert await bystander.silent()
