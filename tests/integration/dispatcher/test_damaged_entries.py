"""An entry of the log that cannot be read: its subscribers are told, and the log goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from realtime.models import Message, WalEntry
from tests.support.socket_client import Client, db
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


def damage(table: str, make: Callable[[], object]) -> None:
    """An entry as after a repair by hand that went wrong, before one that `make` writes."""
    make()
    entry = WalEntry.objects.filter(table_name=table).latest("id")
    WalEntry.objects.create(
        table_name=table,
        op="INSERT",
        new='{"',
        relation_id=entry.relation_id,
        txid=entry.txid,
        captured_us=entry.captured_us,
    )
    make()


async def test_a_change_that_cannot_be_read_is_a_resync_and_the_next_one_comes(
    granted: Callable[..., Any],
) -> None:
    await db(granted, "view_note", using={"title": "a"})
    client = await Client().connect()
    await client.listen()
    await db(damage, "zoo_note", lambda: Note.objects.create(title="a"))
    first = await client.change()
    told = await client.until(lambda f: f[3] == "system")
    assert told[4]["message"] == "resync required"
    second = await client.change()
    assert second["seq"] == first["seq"] + 2
    await client.close()


async def test_a_stored_broadcast_that_cannot_be_read_stops_no_other() -> None:
    client = await Client().connect()
    await client.join()
    send = lambda: Message.objects.create(topic="room", event="e", payload={})  # noqa: E731
    await db(damage, "realtime_message", send)
    for _ in range(2):
        await client.until(lambda f: f[3] == "broadcast")
    await client.close()


async def test_a_change_of_a_user_that_cannot_be_read_is_a_resync_of_all_and_the_log_goes_on(
    granted: Callable[..., Any],
) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    names = iter(("ada", "bob"))
    await db(damage, "auth_user", lambda: User.objects.create_user(next(names)))
    told = await client.until(lambda f: f[3] == "system")
    assert told[4]["message"] == "resync required"
    await db(Note.objects.create, title="a")
    assert (await client.change())["record"]["title"] == "a"
    await client.close()
