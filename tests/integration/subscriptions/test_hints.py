"""An error of a binding keeps the official text, and says beside it what may help."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from realtime.event_log import sequencer
from realtime.process.hub import hub
from tests.support.socket_client import Client, db
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


async def refused(**binding: Any) -> dict[str, Any]:
    client = await Client().connect()
    table = {"event": "*", "schema": "public", "table": "zoo_note", **binding}
    assert (await client.join(postgres_changes=[table]))["status"] == "ok"
    told: dict[str, Any] = (await client.until(lambda f: f[3] == "system"))[4]
    await client.close()
    assert told["status"] == "error"
    return told


async def test_a_table_that_is_not_published_is_told_as_one_that_is_not_there() -> None:
    absent, unpublished = await refused(table="nothing"), await refused(table="auth_user")
    assert absent["hint"] == unpublished["hint"] == "No table of this name is published."
    misspelt = await refused(table="zoo_notes")
    assert misspelt["hint"].endswith("Did you mean 'zoo_note'?")
    assert misspelt["message"].startswith("Unable to subscribe to changes with given parameters.")


@pytest.mark.parametrize("binding", [{"filter": "titel=eq.a"}, {"select": ["titel"]}])
async def test_a_misspelt_column_is_named_as_it_should_be(
    granted: Any, binding: dict[str, Any]
) -> None:
    await db(granted, "view_note")
    told = await refused(**binding)
    assert "Did you mean 'title'?" in told["hint"]
    assert "invalid column" in told["message"]


async def test_a_live_binding_of_one_kind_of_event_is_told_what_to_ask_for() -> None:
    told = await refused(event="INSERT", live=True)
    assert told["hint"] == 'Ask for event "*", or leave out `live`.'


async def subscribed() -> dict[str, Any]:
    """The message of a binding that works."""
    client = await Client().connect()
    table = {"event": "*", "schema": "public", "table": "zoo_note"}
    assert (await client.join(postgres_changes=[table]))["status"] == "ok"
    told: dict[str, Any] = (await client.until(lambda f: f[3] == "system"))[4]
    await client.close()
    assert (told["status"], told["message"]) == ("ok", "Subscribed to PostgreSQL")
    return told


async def test_a_developer_reads_that_no_policy_shows_a_row(granted: Any, settings: Any) -> None:
    assert "hint" not in await subscribed()
    settings.DEBUG = True
    hint = (await subscribed())["hint"]
    assert "No policy shows rows of zoo_note" in hint and "role anon" in hint
    await db(granted, "view_note")
    # A join may still go by the policies of a moment ago.
    while "hint" in await subscribed():
        continue


async def test_a_client_that_joins_reads_that_no_process_numbers_what_waits(
    settings: Any,
) -> None:
    settings.REALTIME = {"TAILER": "external"}
    assert "hint" not in await subscribed()
    numbering = hub().numbering
    await db(Note.objects.create, title="waits")
    while numbering.hint is None:
        await numbering.look()
    assert "no process numbers them" in (await subscribed())["hint"]
    await db(lambda: sequencer.number(connections["default"]))
    await numbering.look()
    assert "hint" not in await subscribed()


async def test_a_client_that_joined_before_reads_it_at_its_heartbeat(settings: Any) -> None:
    settings.REALTIME = {"TAILER": "external"}
    client = await Client().connect()
    table = {"event": "*", "schema": "public", "table": "zoo_note"}
    assert (await client.join(postgres_changes=[table]))["status"] == "ok"
    await client.until(lambda f: f[3] == "system")
    await db(Note.objects.create, title="waits")
    while hub().numbering.hint is None:
        await hub().numbering.look()
    await client.push("phoenix", "heartbeat", {})
    told = (await client.until(lambda f: f[3] == "system"))[4]
    assert (told["status"], told["message"]) == ("ok", "Subscribed to PostgreSQL")
    assert "no process numbers them" in told["hint"]
    await client.close()
