"""An entry of the log that cannot be read: its subscribers are told, and the log goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from auth_rls.sets.live_set import Change, LiveSets, Shifts
from realtime.event_log.position import Position
from realtime.models import Message, WalEntry
from realtime.subscriptions.rebinding import Rebinding
from tests.support.live_sets import MINE
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


def damage(table: str, make: Callable[[], object]) -> None:
    """An entry as after a repair by hand that went wrong, before one that `make` writes."""
    make()
    entry = WalEntry.objects.filter(table_name=table).latest("id")
    WalEntry.objects.create(
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


def membership() -> tuple[User, Team, Member]:
    user, team = User.objects.create_user("ada"), Team.objects.create(name="t")
    return user, team, Member.objects.create(user=user, team=team)


@pytest.mark.parametrize("error", [KeyError, IndexError, TypeError])
async def test_a_change_of_rights_at_which_code_fails_is_a_resync_and_not_skipped(
    granted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    await db(granted, "view_note", using={"team__in": MINE})
    user, team, member = await db(membership)
    client = await Client(token=token(user.pk)).connect()
    await client.listen()
    await db(Note.objects.create, title="before", team=team)
    await client.change()
    apply, fails = LiveSets.apply, [error("a fault")]

    def fails_once(sets: LiveSets, change: Change) -> Shifts:
        if fails:
            raise fails.pop()
        return apply(sets, change)

    monkeypatch.setattr(LiveSets, "apply", fails_once)
    await db(member.delete)
    await client.until(lambda f: f[3] == "system" and f[4]["message"] == "resync required")
    await db(Note.objects.create, title="secret", team=team)
    await db(Member.objects.create, user=user, team=team)
    await db(Note.objects.create, title="after", team=team)
    assert (await client.change())["record"]["title"] == "after"
    await client.close()


async def test_sets_that_moved_before_code_failed_show_no_row_after_the_resync(
    granted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await db(granted, "view_note", using={"team__in": MINE})
    user, team, member = await db(membership)
    client = await Client(token=token(user.pk)).connect()
    await client.listen()
    apply, restart, fails = LiveSets.apply, Rebinding.restart, [1, 1]

    def fails_after(sets: LiveSets, change: Change) -> Shifts:
        shifts = apply(sets, change)
        if len(fails) == 2:
            fails.pop()
            raise OSError("a fault that looks like one of the database")
        return shifts

    async def fails_once(rebinding: Rebinding, at: Position) -> None:
        if fails:
            fails.pop()
            raise KeyError("a fault of the first attempt")
        await restart(rebinding, at)

    monkeypatch.setattr(LiveSets, "apply", fails_after)
    monkeypatch.setattr(Rebinding, "restart", fails_once)
    await db(member.delete)
    await client.until(lambda f: f[3] == "system" and f[4]["message"] == "resync required")
    await db(Note.objects.create, title="secret", team=team)
    await db(Member.objects.create, user=user, team=team)
    await db(Note.objects.create, title="after", team=team)
    assert (await client.change())["record"]["title"] == "after"
    await client.close()
