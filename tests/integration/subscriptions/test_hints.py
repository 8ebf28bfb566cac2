"""An error of a binding keeps the official text, and says beside it what may help."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.socket_client import Client, db

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
