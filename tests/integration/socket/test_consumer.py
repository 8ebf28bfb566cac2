"""The whole way in one process: from a committed row to a frame, and what may not get through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client as Browser

from auth_rls.models import Policy
from realtime.event_log.table import backlog
from realtime.process.hub import hub
from realtime.protocol.errors import CloseCode
from realtime.wal.head import read_head
from tests.support.socket_client import Client, application, closed, db
from tests.support.tokens import token
from tests.support.topics import allow
from tests.support.waiting import PATIENCE_SECONDS, auntil
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


async def user(name: str, **fields: Any) -> User:
    return await db(User.objects.create_user, name, **fields)


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


@pytest.mark.parametrize(
    "bad",
    ["garbage", "a.b.c", "", "x" * 100_000, "\x00", "eyJhbGciOiJub25lIn0.e30."],
)
async def test_a_bad_token_refuses_the_join_and_leaves_the_socket(bad: str) -> None:
    client = await Client().connect()
    reply = await client.join(access_token=bad)
    if bad.strip():
        assert reply["status"] == "error"
        assert bad not in json.dumps(reply)
    ref = await client.push("phoenix", "heartbeat", {})
    assert (await client.reply(ref))["status"] == "ok"
    await client.close()


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


async def test_a_fresh_token_changes_the_subject_in_band(granted: Any) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(granted, "view_note", using={"owner": "$user.id"})
    client = await Client(token=token(ada.pk)).connect()
    await client.listen()
    await client.push("realtime:room", "access_token", {"access_token": token(bob.pk)})
    assert (await client.receive())[4]["message"] == "Subscribed to PostgreSQL"
    await db(Note.objects.create, owner=ada, title="for ada")
    await db(Note.objects.create, owner=bob, title="for bob")
    assert (await client.change())["record"]["title"] == "for bob"
    assert await client.silent()
    await client.close()


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "joining"])
async def test_a_broadcast_right_behind_a_token_is_judged_by_that_token(joined: bool) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(allow, "receive_broadcast")
    await db(allow, "send_broadcast", {"topic": "$user.username"})
    client = await Client(token=token(ada.pk)).connect()
    for name, status in (("bob", "ok"), ("ada", "error")):
        topic = f"realtime:{name}"
        config = {"private": True, "broadcast": {"ack": True}}
        joining = {"config": config, "access_token": token(ada.pk, n=1)}
        ref = await client.push(topic, "phx_join", joining)
        if joined:
            assert (await client.reply(ref))["status"] == "ok"
        await client.push(topic, "access_token", {"access_token": token(bob.pk)})
        message = {"type": "broadcast", "event": "e", "payload": {}}
        reply = await client.reply(await client.push(topic, "broadcast", message))
        assert reply["status"] == status, name
    await client.close()


async def test_a_broadcast_ahead_of_a_token_is_judged_by_the_token_before() -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(allow, "receive_broadcast")
    await db(allow, "send_broadcast", {"topic": "$user.username"})
    client = await Client(token=token(ada.pk)).connect()
    config = {"private": True, "broadcast": {"ack": True}}
    await client.push("realtime:ada", "phx_join", {"config": config})
    message = {"type": "broadcast", "event": "e", "payload": {}}
    first = await client.push("realtime:ada", "broadcast", message)
    await client.push("realtime:ada", "access_token", {"access_token": token(bob.pk)})
    second = await client.push("realtime:ada", "broadcast", message)
    assert (await client.reply(first))["status"] == "ok"
    assert (await client.reply(second))["status"] == "error"
    await client.close()


async def test_of_many_tokens_at_once_the_last_counts(granted: Any) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(granted, "view_note", using={"owner": "$user.id"})
    await db(allow, "receive_broadcast")
    await db(allow, "send_broadcast")
    client = await Client(token=token(ada.pk)).connect()
    binding = {"event": "*", "schema": "public", "table": "zoo_note"}
    config = {"postgres_changes": [binding], "private": True, "broadcast": {"ack": True}}
    await client.push("realtime:room", "phx_join", {"config": config})
    for sent in (token(ada.pk, n=1), "garbage", token(ada.pk, n=2), token(bob.pk)):
        await client.push("realtime:room", "access_token", {"access_token": sent})
    message = {"type": "broadcast", "event": "e", "payload": {}}
    # The answer comes when the last of them has taken effect.
    reply = await client.reply(await client.push("realtime:room", "broadcast", message))
    assert reply["status"] == "ok"
    await db(Note.objects.create, owner=ada, title="for ada")
    await db(Note.objects.create, owner=bob, title="for bob")
    assert (await client.change())["record"]["title"] == "for bob"
    await client.close()


async def test_a_bad_token_in_band_ends_the_channel_with_an_error() -> None:
    client = await Client().connect()
    await client.listen()
    await client.push("realtime:room", "access_token", {"access_token": "garbage"})
    system, error = await client.receive(), await client.receive()
    assert system[4]["status"] == "error"
    assert error[3] == "phx_error"
    assert (await client.join())["status"] == "ok"
    await client.close()


async def test_an_expired_token_ends_its_channel_and_a_fresh_one_rejoins() -> None:
    client = await Client(token=token(1, ttl=60)).connect()
    # A slow machine may take longer for the join than the first of these tokens are good for.
    for ttl in (1, 2, 4, 8, 16):
        if (await client.join(access_token=token(1, ttl=ttl)))["status"] == "ok":
            break
    client.unread.clear()
    error = await client.until(lambda f: f[3] == "phx_error")
    assert error[2] == "realtime:room"
    assert "Token has expired" in client.unread[0][4]["message"]
    assert (await client.join(access_token=token(1)))["status"] == "ok"
    await client.close()


async def test_a_private_channel_is_closed_to_all_without_a_policy() -> None:
    client = await Client(token=token(1)).connect()
    reply = await client.join(private=True)
    assert reply["response"]["reason"] == (
        "Unauthorized: You do not have permissions to read from this Channel topic: room"
    )
    await client.close()


async def test_a_broadcast_reaches_the_others_in_the_room_and_its_sender_if_he_wishes() -> None:
    sender, other, elsewhere = [await Client().connect() for _ in range(3)]
    await sender.join(broadcast={"ack": True})
    await other.join()
    await elsewhere.join("realtime:elsewhere")
    message = {"type": "broadcast", "event": "ping", "payload": {"n": 1}}
    ref = await sender.push("realtime:room", "broadcast", message)
    assert (await sender.reply(ref))["status"] == "ok"
    assert await other.receive() == [None, None, "realtime:room", "broadcast", message]
    assert await sender.silent()
    assert await elsewhere.silent()
    await sender.join("realtime:self", broadcast={"self": True})
    await sender.push("realtime:self", "broadcast", message)
    assert (await sender.until(lambda f: f[3] == "broadcast"))[4] == message
    for client in (sender, other, elsewhere):
        await client.close()


async def test_a_binary_broadcast_reaches_v2_as_bytes_and_v1_not_at_all() -> None:
    sender, v2 = await Client().connect(), await Client().connect()
    v1 = await Client(vsn="1.0.0").connect()
    await sender.join()
    await v2.join()
    joining = {"topic": "realtime:room", "event": "phx_join", "payload": {}, "ref": "1"}
    await v1.raw.send_to(text_data=json.dumps(joining))
    assert (await v1.receive())["payload"]["status"] == "ok"
    head = b"\x03\x01\x01\x0d\x02\x00"
    await sender.raw.send_to(bytes_data=head + b"\x0011realtime:roomev\x00\xff")
    assert await v2.receive() == b"\x04\x0d\x02\x00\x00realtime:roomev\x00\xff"
    await sender.raw.send_to(bytes_data=head + b'\x0112realtime:roomev{"a":1}')
    assert (await v2.receive())[4] == {"type": "broadcast", "event": "ev", "payload": {"a": 1}}
    assert (await v1.receive())["payload"]["payload"] == {"a": 1}
    for client in (sender, v2, v1):
        await client.close()


async def test_a_connection_too_many_is_refused_and_a_place_that_is_left_is_free(
    settings: Any,
) -> None:
    settings.REALTIME = {"LIMITS": {"connections": 1}}
    first = await Client().connect()
    assert await Client().refusal() == CloseCode.TOO_MANY
    await first.close()
    second = await Client().connect()
    await second.close()


async def test_a_slow_reader_is_given_up_and_others_notice_nothing(
    granted: Any, settings: Any
) -> None:
    settings.REALTIME = {"LIMITS": {"outbox_bytes": 20_000}}
    await db(granted, "view_note")
    scope = {
        "type": "websocket",
        "path": "/realtime",
        "query_string": b"vsn=2.0.0",
        "headers": [],
        "subprotocols": [],
    }
    inbound: asyncio.Queue[Any] = asyncio.Queue()
    accepted, release = asyncio.Event(), asyncio.Event()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            await release.wait()  # the client does not read
        sent.append(message)
        accepted.set()

    stuck = asyncio.create_task(application(scope, inbound.get, send))
    await inbound.put({"type": "websocket.connect"})
    await accepted.wait()
    binding = {"event": "*", "schema": "public", "table": "zoo_note"}
    join = ["1", "1", "realtime:x", "phx_join", {"config": {"postgres_changes": [binding]}}]
    await inbound.put({"type": "websocket.receive", "text": json.dumps(join)})
    good = await Client().connect()
    await good.listen()
    notes = [Note(title="x" * 150, body="y" * 900) for _ in range(30)]
    await db(Note.objects.bulk_create, notes)
    for _ in notes:
        await good.change()
    await stuck
    assert sent[-1]["type"] == "websocket.close"
    assert sent[-1]["code"] == CloseCode.SLOW_CONSUMER
    await good.close()


async def test_messages_right_behind_a_join_take_effect_after_it() -> None:
    listener, client = await Client().connect(), await Client().connect()
    await listener.join()
    config = {"broadcast": {"ack": True}, "presence": {"key": "me", "enabled": True}}
    join = await client.push("realtime:room", "phx_join", {"config": config})
    said = [
        await client.push("realtime:room", "broadcast", {"event": "e", "payload": number}, join)
        for number in range(20)
    ]
    track = {"event": "track", "payload": {"n": 1}}
    said.append(await client.push("realtime:room", "presence", track, join))
    assert (await client.reply(join))["status"] == "ok"
    for ref in said:
        assert (await client.reply(ref))["status"] == "ok"
    heard = [(await listener.until(lambda f: f[3] == "broadcast"))[4]["payload"] for _ in range(20)]
    assert heard == list(range(20))
    await client.close()
    await listener.close()


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
