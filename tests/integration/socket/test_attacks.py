"""Ways around the policies that somebody may try from a socket, each of which leads nowhere.

Those by REST are in `test_rest_oracles.py`; what a right that ends takes with it, by every kind of
change, is in `test_revocation.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection

import realtime
from auth_rls.models import Policy
from realtime import publish
from realtime.event_log import sequencer
from realtime.models import WalEntry
from realtime.process.hub import hub
from realtime.wal import published, triggers
from tests.support.live_sets import MINE
from tests.support.socket_client import Client, closed, db
from tests.support.tokens import token
from tests.support.waiting import auntil
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal", "closing_hub")]

TABLE = {"event": "*", "schema": "public", "table": "zoo_note"}


@pytest.fixture
def secretive(transactional_db: None) -> Iterator[None]:
    """Notes are published without their score, and without the flag that a policy reads."""
    publish(Note, exclude=["score", "is_public"])
    triggers.reconcile()
    yield
    published.publish(Note)
    triggers.reconcile()


async def told(client: Client, topic: str = "realtime:room", **binding: Any) -> dict[str, Any]:
    """What the server says to a join for notes with this binding."""
    reply = await client.join(topic, postgres_changes=[{**TABLE, **binding}])
    assert reply["status"] == "ok", reply
    frame = await client.until(lambda f: f[3] == "system")
    found: dict[str, Any] = frame[4]
    return found


async def everything(client: Client) -> list[Any]:
    """All changes the client was sent until now."""
    ref = await client.push("phoenix", "heartbeat", {})
    frames, client.unread = client.unread, []
    while True:
        frame = await client.receive()
        if frame[1] == ref:
            return [f[4]["data"] for f in frames if f[3] == "postgres_changes"]
        frames.append(frame)


async def settle() -> None:
    """All that is committed has been handed out."""
    waiting = WalEntry.objects.filter(seq=None)
    await auntil(lambda: db(lambda: not waiting.exists()), "numbering")
    head = await db(realtime.head)
    await auntil(lambda: hub().position.seq >= head)


# --- columns that are not shown -----------------------------------------------------------------


@pytest.mark.parametrize("column", ["score", "is_public"])
async def test_a_filter_on_a_hidden_column_is_one_on_a_column_that_does_not_exist(
    connect: Any, granted: Any, secretive: None, column: str
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    client = await connect()
    answers = [
        await told(client, f"realtime:{name}", filter=f"{name}=eq.1") for name in (column, "wings")
    ]
    texts = [answer["message"].replace(column, "wings") for answer in answers]
    assert [answer["status"] for answer in answers] == ["error", "error"]
    assert texts[0] == texts[1]


async def test_a_hidden_column_cannot_be_selected(
    connect: Any, granted: Any, secretive: None
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    answer = await told(await connect(), select=["title", "score"])
    assert answer["status"] == "error"
    assert "invalid column for select score" in answer["message"]


async def test_a_hidden_column_is_in_no_frame_of_any_kind(
    connect: Any, granted: Any, secretive: None
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    client = await connect()
    await told(client, snapshot=True, live=True)
    await client.until(lambda f: f[3] == "system" and "count" in f[4])
    note = await db(lambda: Note.objects.create(title="one", score=4711, is_public=True))
    for changes in ({"title": "two"}, {"score": 4712}, {"is_public": False}):
        await db(lambda c=changes: Note.objects.filter(pk=note.pk).update(**c))
    await db(note.delete)
    await settle()
    seen = await everything(client)
    assert [data["type"] for data in seen] == ["INSERT", "UPDATE", "DELETE"]
    text = json.dumps(seen)
    assert "4711" not in text and "score" not in text and "is_public" not in text


async def test_a_change_of_nothing_that_is_shown_is_no_news(
    connect: Any, granted: Any, secretive: None
) -> None:
    await db(granted, "view_note")
    client = await connect()
    note = await db(lambda: Note.objects.create(title="one", score=1))
    await told(client)
    await db(lambda: Note.objects.filter(pk=note.pk).update(score=2))
    await settle()
    assert await everything(client) == []


# --- rows that may not be seen ------------------------------------------------------------------


@pytest.mark.parametrize("filter_", ["id=gt.0", "title=like.*", "title=eq.secret", "score=gt.5"])
async def test_no_filter_tells_whether_a_hidden_row_matches(
    connect: Any, granted: Any, filter_: str
) -> None:
    await db(granted, "view_note", using={"owner": "$user.id"})
    client = await connect(token=token("nobody"))
    answers = [await told(client, filter=filter_, snapshot=True)]
    done = await client.until(lambda f: f[3] == "system" and "count" in f[4])
    await db(lambda: Note.objects.create(title="secret", score=9).delete())
    await settle()
    assert await everything(client) == []
    assert (answers[0]["status"], done[4]["count"]) == ("ok", 0)


async def test_an_update_out_of_sight_shows_nothing_of_the_new_row(
    connect: Any, granted: Any
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    plain, live = await connect(), await connect()
    note = await db(lambda: Note.objects.create(title="shown", is_public=True))
    await told(plain)
    await told(live, live=True)
    await db(lambda: Note.objects.filter(pk=note.pk).update(title="secret", is_public=False))
    await settle()
    assert await everything(plain) == []
    (left,) = await everything(live)
    assert (left["type"], left["old_record"]) == ("DELETE", {"id": note.pk})
    assert "secret" not in json.dumps(left)


async def test_an_update_into_sight_shows_nothing_of_the_old_row(
    connect: Any, granted: Any
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    plain, live = await connect(), await connect()
    note = await db(lambda: Note.objects.create(title="secret", is_public=False))
    await told(plain)
    await told(live, live=True)
    await db(lambda: Note.objects.filter(pk=note.pk).update(title="shown", is_public=True))
    await settle()
    for client in (plain, live):
        (came,) = await everything(client)
        assert came["record"]["title"] == "shown"
        assert "secret" not in json.dumps(came)


async def test_the_deletion_of_a_hidden_row_is_told_nobody(connect: Any, granted: Any) -> None:
    await db(granted, "view_note", using={"is_public": True})
    client = await connect()
    note = await db(lambda: Note.objects.create(title="secret"))
    await told(client, filter=f"id=eq.{note.pk}")
    await db(note.delete)
    await settle()
    assert await everything(client) == []


async def test_what_was_seen_once_is_not_replayed_to_who_may_see_it_no_more(
    connect: Any, granted: Any
) -> None:
    policy = await db(granted, "view_note", using={"is_public": True})
    client = await connect()
    start = await client.listen()
    await db(lambda: Note.objects.create(title="once", is_public=True))
    await client.change()
    await db(policy.delete)
    await settle()
    again = await connect()
    for since in (start["seq"], f"{start['epoch']}:{start['seq']}"):
        answer = await told(again, f"realtime:{since}", since=since, snapshot=True)
        assert answer["status"] == "ok"
    await again.until(lambda f: f[3] == "system" and f[4]["extension"] != "postgres_changes")
    assert await everything(again) == []


async def test_a_membership_of_the_past_opens_nothing_of_the_past(
    connect: Any, granted: Any
) -> None:
    def world() -> tuple[User, Member]:
        ada, team = User.objects.create_user("ada"), Team.objects.create(name="t")
        mine = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
        granted("view_note", using={"team__in": mine})
        member = Member.objects.create(user=ada, team=team)
        Note.objects.create(title="then", team=team)
        return ada, member

    ada, member = await db(world)
    await db(member.delete)
    await db(lambda: sequencer.number(connection, 1_000))
    client = await connect(token=token(ada.pk))
    await told(client, since=0)
    await client.until(lambda f: f[3] == "system" and f[4]["extension"] == "resume")
    assert await everything(client) == []


# --- tables that are published to nobody ---------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        "auth_user",
        "auth_rls_policy",
        "realtime_wal",
        "realtime_message",
        "realtime_presence",
        "zoo_member",
        "no_such_table",
    ],
)
async def test_a_table_that_is_not_published_is_one_that_does_not_exist(
    connect: Any, granted: Any, table: str
) -> None:
    mine = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
    await db(granted, "view_note", using={"team__in": mine})
    client = await connect(token=token("job", "service_role"))
    answer = await told(client, table=table)
    assert answer["status"] == "error"
    assert (
        answer["message"]
        .replace(table, "X")
        .startswith(
            "Unable to subscribe to changes with given parameters. Please check Realtime is enabled"
        )
    )


async def test_a_wildcard_brings_nothing_that_is_captured_for_the_server_itself(
    connect: Any, granted: Any
) -> None:
    mine = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
    await db(granted, "view_note", using={"team__in": mine})
    client = await connect(token=token("job", "service_role"))
    await told(client, table="*", live=True)

    def write() -> None:
        ada, team = User.objects.create_user("ada"), Team.objects.create(name="t")
        Member.objects.create(user=ada, team=team)
        realtime.broadcast("elsewhere", "e", {"secret": 1}, private=True, durable=True)
        Note.objects.create(title="last")

    await db(write)
    await settle()
    assert {data["table"] for data in await everything(client)} == {"zoo_team", "zoo_note"}


# --- who one is ---------------------------------------------------------------------------------


async def test_a_token_of_role_anon_is_nobody_even_with_a_superusers_id(
    connect: Any, granted: Any
) -> None:
    root = await db(User.objects.create_superuser, "root")
    await db(granted, "view_note", using={"owner": "$user.id"}, audience="authenticated")
    client = await connect(token=token(root.pk, "anon"))
    await told(client)
    await db(lambda: Note.objects.create(title="secret", owner=root))
    await settle()
    assert await everything(client) == []


@pytest.mark.parametrize("claims", [{}, {"tenant": None}, {"tenant": {"id": 1}}, {"tenant": []}])
async def test_a_claim_that_is_missing_or_odd_opens_nothing(
    connect: Any, granted: Any, claims: dict[str, Any]
) -> None:
    await db(
        granted,
        "view_note",
        using={"any": [{"title": "$claims.tenant"}, {"not": {"title": "$claims.tenant"}}]},
    )
    client = await connect(token=token("a", **claims))
    await told(client)
    await db(lambda: Note.objects.create(title="secret"))
    await settle()
    assert await everything(client) == []


async def test_another_persons_private_room_is_not_opened_by_its_spelling(
    connect: Any, granted: Any
) -> None:
    def world() -> None:
        permission = Permission.objects.get(codename="receive_broadcast")
        Policy.objects.create(
            name="mine",
            permission=permission,
            audience="anyone",
            using={"topic": "$claims.room"},
        )

    await db(world)
    client = await connect(token=token("a", room="room:1"))
    for name in (
        "room:10",
        "room:1 ",
        " room:1",
        "ROOM:1",
        "room:1\0",
        "room:1/",
        "realtime:room:1",
    ):
        reply = await client.join(f"realtime:{name}", private=True)
        assert reply["status"] == "error", name
    assert (await client.join("realtime:room:1", private=True))["status"] == "ok"


# --- a socket that was open before --------------------------------------------------------------
# It was let in as somebody who is somebody else by now. What it had joined is bound anew by the log
# (`test_revocation.py`); these ask what it joins after that.


@pytest.fixture(params=["nothing", "joined", "own token"])
def opened(request: Any, connect: Any) -> Any:
    """A socket that came before: without a channel, with one, or with its channels' own tokens."""

    async def open_(user: Any) -> tuple[Client, dict[str, str]]:
        mine = token(user.pk)
        alone = request.param == "own token"
        client = await connect(**({} if alone else {"token": mine}))
        # Somebody listens, so the process follows the log.
        await told(await connect(token=token("somebody")))
        own = {"access_token": mine} if alone else {}
        if request.param != "nothing":
            await client.join("realtime:before", postgres_changes=[TABLE], **own)
            await client.until(lambda f: f[3] == "system")
        return client, own

    return open_


async def after(client: Client, own: dict[str, str], **config: Any) -> None:
    """Joins, and has what was there before: what is committed from here on comes by the log."""
    config = {"postgres_changes": [{**TABLE, "snapshot": True}], **config}
    await client.join("realtime:after", **own, **config)
    await client.until(lambda f: f[3] == "system" and "count" in f[4])


async def test_a_superuser_who_is_none_any_more_joins_as_anybody(opened: Any, granted: Any) -> None:
    await db(granted, "view_note", using={"owner": "$user.id"}, audience="authenticated")
    root = await db(User.objects.create_superuser, "root")
    await db(lambda: Note.objects.create(title="a secret"))
    client, own = await opened(root)
    await db(User.objects.filter(pk=root.pk).update, is_superuser=False)
    await settle()
    await after(client, own)
    await db(lambda: Note.objects.create(title="another"))
    await db(lambda: Note.objects.create(title="mine", owner=root))
    await settle()
    titles = {data["record"]["title"] for data in await everything(client)}
    assert titles == {"mine"}


async def test_a_superuser_of_late_joins_as_one(opened: Any, granted: Any) -> None:
    await db(granted, "view_note", using={"owner": "$user.id"}, audience="authenticated")
    ada = await db(User.objects.create_user, "ada")
    client, own = await opened(ada)
    await db(User.objects.filter(pk=ada.pk).update, is_superuser=True)
    await db(lambda: Note.objects.create(title="a secret"))
    await settle()
    await client.push("phoenix", "heartbeat", {})
    client.unread.clear()
    await after(client, own)
    assert "a secret" in {data["record"]["title"] for data in await everything(client)}


async def test_what_a_policy_asks_of_the_user_is_what_he_is_now(opened: Any, granted: Any) -> None:
    await db(granted, "view_note", using={"title": "$user.email"}, audience="authenticated")
    ada = await db(User.objects.create_user, "ada", "old")
    client, own = await opened(ada)
    await db(User.objects.filter(pk=ada.pk).update, email="new")
    await settle()
    await after(client, own)
    await db(lambda: Note.objects.create(title="old"))
    await db(lambda: Note.objects.create(title="new"))
    await settle()
    titles = {data["record"]["title"] for data in await everything(client)}
    assert titles == {"new"}


@pytest.mark.parametrize("private", [False, True])
async def test_a_user_who_may_not_ask_any_more_joins_nothing(
    opened: Any, granted: Any, private: bool
) -> None:
    await db(granted, "view_note", using=True, audience="authenticated")
    ada = await db(User.objects.create_user, "ada")
    client, own = await opened(ada)
    await db(User.objects.filter(pk=ada.pk).update, is_active=False)
    await settle()
    await client.push("realtime:after", "phx_join", {"config": {"private": private}, **own})
    assert await closed(client) == 4401


# --- captures that were away --------------------------------------------------------------------


@pytest.mark.parametrize("way", ["install", "repair", "policy"])
async def test_writes_without_triggers_are_told_when_the_triggers_come_back(
    connect: Any, granted: Any, way: str
) -> None:
    """A membership that ended meanwhile shows no row, and a cursor from before is not valid."""
    await db(granted, "view_note", using={"team__in": MINE})

    def prepare() -> tuple[User, Team, Member]:
        user = User.objects.create_user("ada")
        team = Team.objects.create(name="hers")
        return user, team, Member.objects.create(user=user, team=team)

    user, team, member = await db(prepare)
    client = await connect(token=token(user.pk))
    await client.listen()
    await db(Note.objects.create, title="before", team=team)
    cursor = f"{hub().position.epoch}:{(await client.change())['seq']}"

    def away() -> None:
        triggers.uninstall()
        member.delete()
        Note.objects.create(title="lost", team=team)
        match way:
            case "install":
                call_command("realtime_triggers", "install", verbosity=0)
            case "repair":
                call_command("realtime_repair", stdout=StringIO())
            case _:
                Policy.objects.get().save()

    await db(away)
    await client.until(lambda f: f[3] == "system" and f[4]["message"] == "resync required")
    await db(Note.objects.create, title="secret", team=team)
    await settle()
    assert await everything(client) == []
    late = await connect(token=token(user.pk))
    await late.join(postgres_changes=[{**TABLE, "since": cursor}])
    await late.until(lambda f: f[3] == "system" and f[4]["message"] == "resync required")
