"""Changes over one socket: who gets which, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from auth_rls.models import Policy
from realtime.event_log.table import backlog
from realtime.process.hub import hub
from realtime.protocol.errors import CloseCode
from realtime.wal.head import read_head
from tests.support.socket_client import Client, closed, db
from tests.support.socket_users import user
from tests.support.tokens import token
from tests.support.waiting import auntil
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


async def test_a_committed_row_arrives_at_who_may_see_it_and_nobody_else(granted: Any) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(granted, "view_note", using={"owner": "$user.id"})
    hers = await Client(token=token(ada.pk)).connect()
    his = await Client(token=token(bob.pk)).connect()
    start = await hers.listen()
    await his.listen()
    note = await db(Note.objects.create, owner=ada, title="for ada", price="1.10")
    await db(Note.objects.create, owner=bob, title="for bob")
    change = await hers.change()
    assert change["type"] == "INSERT"
    assert change["record"]["title"] == "for ada"
    assert change["record"]["id"] == note.pk
    assert change["seq"] > start["seq"]
    assert (await his.change())["record"]["title"] == "for bob"
    assert await hers.silent()
    assert await his.silent()
    await hers.close()
    await his.close()


async def test_without_a_policy_nobody_gets_anything_but_the_service_role() -> None:
    ada = await user("ada")
    hers = await Client(token=token(ada.pk)).connect()
    service = await Client(token=token("job", role="service_role")).connect()
    await hers.listen()
    await service.listen()
    await db(Note.objects.create, owner=ada, title="secret")
    assert (await service.change())["record"]["title"] == "secret"
    assert await hers.silent()
    await hers.close()
    await service.close()


async def test_update_and_delete_arrive_with_their_images(granted: Any) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    note = await db(Note.objects.create, title="one")
    await db(Note.objects.filter(pk=note.pk).update, title="two")
    await db(Note.objects.filter(pk=note.pk).delete)
    insert, update, delete = [await client.change() for _ in range(3)]
    assert (insert["type"], update["type"], delete["type"]) == ("INSERT", "UPDATE", "DELETE")
    assert "old_record" not in insert
    assert (update["old_record"]["title"], update["record"]["title"]) == ("one", "two")
    assert "record" not in delete
    assert delete["old_record"]["title"] == "two"
    assert insert["seq"] < update["seq"] < delete["seq"]
    assert insert["commit_timestamp"] < update["commit_timestamp"] < delete["commit_timestamp"]
    await client.close()


async def test_a_filter_narrows_and_a_select_cuts(granted: Any) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen(filter="score=gte.10,title=not.eq.x", select=["title"])
    for score, title in ((5, "low"), (50, "x"), (None, "none"), (10, "this")):
        await db(Note.objects.create, score=score, title=title)
    change = await client.change()
    assert change["record"].keys() == {"id", "title"}
    assert change["record"]["title"] == "this"
    assert await client.silent()
    await client.close()


async def test_a_rolled_back_row_never_arrives(granted: Any) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()

    def work() -> None:
        with pytest.raises(RuntimeError), transaction.atomic():
            Note.objects.create(title="never")
            raise RuntimeError
        Note.objects.create(title="kept")

    await db(work)
    assert (await client.change())["record"]["title"] == "kept"
    await client.close()


async def dispatched() -> None:
    """Wait until everything committed so far has been handed out."""

    def reached() -> bool:
        return backlog(connection) + read_head(connection).seq == here.position.seq

    here = hub()
    await auntil(lambda: db(reached), "the end of the log")


async def test_a_disabled_policy_silences_at_once_and_an_enabled_one_speaks_again(
    granted: Any,
) -> None:
    policy = await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    await dispatched()

    async def switch(enabled: bool) -> None:
        client.unread.clear()
        await db(Policy.objects.filter(pk=policy.pk).update, enabled=enabled)
        # Told that what it may see has changed.
        assert (await client.until(lambda frame: True))[3] == "system"

    await switch(False)
    await db(Note.objects.create, title="hidden")
    await dispatched()
    await switch(True)
    await db(Note.objects.create, title="shown")
    assert (await client.change())["record"]["title"] == "shown"
    await client.close()


async def test_membership_decides_from_the_moment_it_changes(granted: Any) -> None:
    ada, team = await user("ada"), await db(Team.objects.create, name="red")
    mine = {"select": "team_id", "from": "zoo.Member", "where": {"user": "$user.id"}}
    await db(granted, "view_note", using={"team__in": mine}, audience="authenticated")
    client = await Client(token=token(ada.pk)).connect()
    await client.listen()
    await db(Note.objects.create, team=team, title="before")
    await dispatched()
    member = await db(Member.objects.create, user=ada, team=team)
    await db(Note.objects.create, team=team, title="during")
    await dispatched()
    # In one transaction: whatever is read then, the membership is gone.
    await db(lambda: _atomically(member.delete, lambda: Note.objects.create(team=team, title="no")))
    await dispatched()
    await db(Member.objects.create, user=ada, team=team)
    await db(Note.objects.create, team=team, title="again")
    assert [(await client.change())["record"]["title"] for _ in range(2)] == ["during", "again"]
    await client.close()


def _atomically(*steps: Callable[[], object]) -> None:
    with transaction.atomic():
        for step in steps:
            step()


async def test_a_user_who_is_made_inactive_is_put_out(granted: Any) -> None:
    ada = await user("ada")
    await db(granted, "view_note")
    client = await Client(token=token(ada.pk)).connect()
    await client.listen()
    await db(User.objects.filter(pk=ada.pk).update, is_active=False)
    assert await closed(client) == CloseCode.TOKEN_REFUSED
    assert await Client(token=token(ada.pk)).refusal() == CloseCode.TOKEN_REFUSED


async def test_after_the_answer_to_a_leave_nothing_is_delivered(granted: Any) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    ref = await client.push("realtime:room", "phx_leave", {}, join_ref="1")
    assert (await client.reply(ref))["status"] == "ok"
    assert (await client.receive())[3] == "phx_close"
    await db(Note.objects.create, title="late")
    other = await Client().connect()
    await other.listen(since=0)
    await other.change()
    assert await client.silent()
    await client.close()
    await other.close()


async def test_what_was_missed_is_replayed_once_and_in_order_and_then_it_is_live(
    granted: Any,
) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    for title in "abc":
        await db(Note.objects.create, title=title)
    first = await client.change()
    await client.close()
    for since in (first["seq"], first["commit_timestamp"], str(first["seq"])):
        again = await Client().connect()
        await again.listen(since=since)
        assert [(await again.change())["record"]["title"] for _ in "bc"] == ["b", "c"]
        await again.close()
    live = await Client().connect()
    await live.listen(since=first["seq"])
    await db(Note.objects.create, title="d")
    assert [(await live.change())["record"]["title"] for _ in "bcd"] == ["b", "c", "d"]
    assert [frame[4]["message"] for frame in live.unread] == ["caught up"]
    live.unread.clear()
    assert await live.silent()
    await live.close()


@pytest.mark.parametrize("since", ["other:0", 10**9, "nonsense", "1999-01-01T00:00:00Z"])
async def test_a_cursor_that_leads_nowhere_asks_for_a_resync(granted: Any, since: Any) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.join(
        postgres_changes=[{"event": "*", "schema": "public", "table": "zoo_note", "since": since}]
    )
    told = await client.until(lambda f: f[3] == "system" and f[4]["message"] == "resync required")
    assert told[4]["status"] == "ok"
    assert told[4]["extension"] == "resume"
    await db(Note.objects.create, title="live")
    assert (await client.change())["record"]["title"] == "live"
    await client.close()


async def test_a_lost_doubled_or_late_message_on_the_bus_changes_nothing_for_clients(
    granted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    here = hub()
    publish, calls = here.bus.publish, []

    async def unreliable(message: Any) -> None:
        calls.append(message)
        if len(calls) % 3 == 1:
            return
        await publish(message)
        if len(calls) % 3 == 2:
            await publish(calls[0])
            await publish(message)

    monkeypatch.setattr(here.bus, "publish", unreliable)
    for number in range(12):
        await db(Note.objects.create, title=str(number))
        await auntil(lambda wanted=number: len(calls) > wanted)
    got = [await client.change() for _ in range(12)]
    assert [change["record"]["title"] for change in got] == [str(n) for n in range(12)]
    seqs = [change["seq"] for change in got]
    assert seqs == list(range(seqs[0], seqs[0] + 12))
    assert here.counters.heals > 0
    assert await client.silent()
    await client.close()


async def test_the_delivery_path_uses_neither_the_database_nor_a_thread(
    granted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    await auntil(lambda: hub().dispatcher.position.seq == 1)
    from realtime.event_log import reader
    from realtime.subscriptions import manager, rebinding

    async def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the delivery path asked the database")

    for room in (reader, rebinding, manager):
        monkeypatch.setattr(room, "in_database_thread", forbidden)
    await db(Note.objects.create, title="a")
    assert (await client.change())["record"]["title"] == "a"
    monkeypatch.undo()
    await client.close()


async def test_a_table_that_is_not_published_is_told_while_the_join_succeeds() -> None:
    client = await Client().connect()
    for table in ("zoo_member", "auth_user", "nonsense"):
        binding = {"event": "INSERT", "schema": "public", "table": table}
        reply = await client.join(f"realtime:{table}", postgres_changes=[binding])
        assert reply["status"] == "ok"
        told = await client.receive()
        assert told[4]["status"] == "error"
        assert told[4]["message"] == (
            "Unable to subscribe to changes with given parameters. Please check Realtime is "
            f"enabled for the given connect parameters: [event: INSERT, schema: public, "
            f"table: {table}, filters: [], select: nil]"
        )
    await client.close()


async def test_a_wildcard_hears_every_published_table_that_policies_open(granted: Any) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen("*")
    await db(Team.objects.create, name="closed")
    await db(Note.objects.create, title="open")
    assert (await client.change())["table"] == "zoo_note"
    assert await client.silent()
    await client.close()
