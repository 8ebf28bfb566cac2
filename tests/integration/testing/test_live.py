"""Live clients in the process of the test."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async

from realtime import abroadcast
from realtime.testing import Refused, SetupError
from tests.support.policies import policy, user
from tests.support.socket_client import db
from tests.support.topics import allow
from tests.zoo.models import Member, Note, Team


async def test_a_client_gets_the_changes_that_its_user_may_see(realtime_client: Any) -> None:
    ada = await sync_to_async(user)()
    await sync_to_async(policy)({"owner": "$user.id"})
    client = await realtime_client(user=ada)
    channel = await client.join("room", changes=[Note])
    await Note.objects.acreate(title="nobody's")
    note = await Note.objects.acreate(title="mine", owner=ada)
    change = await channel.next_change(Note, type="INSERT")
    assert (change.pk, change.new["title"]) == (note.pk, "mine")
    await channel.nothing()
    await Note.objects.filter(pk=note.pk).aupdate(title="still mine")
    change = await channel.next_change(Note, type="UPDATE")
    assert change.old["title"] == "mine" and change.new["title"] == "still mine"
    await note.adelete()
    assert (await channel.next_change()).type == "DELETE"


async def test_what_was_committed_before_the_join_is_not_told(realtime_client: Any) -> None:
    await sync_to_async(policy)(True)
    client = await realtime_client()
    await Note.objects.acreate(title="before")
    channel = await client.join("room", changes=[Note])
    await channel.nothing()


async def test_a_filter_a_wildcard_and_a_snapshot_are_bindings_of_the_wire(
    realtime_client: Any,
) -> None:
    await sync_to_async(policy)(True)
    await Note.objects.acreate(title="there")
    client = await realtime_client()
    filtered = await client.join("one", changes=[{"table": Note, "filter": "title=eq.b"}])
    whole = await client.join("two", changes=[{"table": "zoo_note", "snapshot": True}])
    assert (await whole.next_change(Note)).snapshot
    await Note.objects.acreate(title="a")
    await Note.objects.acreate(title="b")
    assert (await filtered.next_change(Note)).new["title"] == "b"
    assert [(await whole.next_change()).new["title"] for _ in range(2)] == ["a", "b"]
    await filtered.nothing()


async def test_a_wait_for_one_thing_leaves_the_others(realtime_client: Any) -> None:
    await sync_to_async(policy)(True)
    await sync_to_async(policy)(True, on="zoo.view_team")
    channel = await (await realtime_client()).join("room", changes=[Note, Team])
    await Note.objects.acreate(title="a")
    await Team.objects.acreate(name="t")
    assert (await channel.next_change(Team)).new["name"] == "t"
    with pytest.raises(AssertionError, match=r"should get nothing, and got: <INSERT zoo.Note"):
        await channel.nothing()
    assert (await channel.next_change(Note)).new["title"] == "a"


async def test_a_membership_takes_effect_live(realtime_client: Any) -> None:
    using = {"team__in": {"select": "team_id", "from": "zoo.Member", "where": {"user": "$user.id"}}}
    ada = await sync_to_async(user)()
    await sync_to_async(policy)(using)
    team = await Team.objects.acreate(name="t")
    channel = await (await realtime_client(user=ada)).join("room", changes=[Note])
    await Note.objects.acreate(title="before", team=team)
    member = await Member.objects.acreate(user=ada, team=team)
    await Note.objects.acreate(title="during", team=team)
    assert (await channel.next_change(Note)).new["title"] == "during"
    await member.adelete()
    await Note.objects.acreate(title="after", team=team)
    await channel.nothing()


async def test_broadcasts_reach_the_others_from_clients_and_from_code(
    realtime_client: Any,
) -> None:
    one = await (await realtime_client()).join("room")
    other = await (await realtime_client()).join("realtime:room")
    await one.broadcast("said", {"text": "hello"})
    got = await other.next_broadcast("said")
    assert (got.event, got.payload) == ("said", {"text": "hello"})
    await one.broadcast("bytes", b"\x00\x01")
    assert (await other.next_broadcast()).payload == b"\x00\x01"
    await abroadcast("room", "from code", {"n": 1})
    assert (await one.next_broadcast()).payload == {"n": 1}
    assert (await other.next_broadcast("from code")).payload == {"n": 1}
    await one.nothing()


async def test_presence_is_what_the_channel_was_told(realtime_client: Any) -> None:
    one = await (await realtime_client()).join("room", presence_key="one")
    other = await (await realtime_client()).join("room", presence_key="other")
    await one.track({"mood": "good"})
    await other.until(lambda: other.presence() == {"one": [{"mood": "good"}]})
    await one.track({"mood": "better"})
    await other.until(lambda: other.presence() == {"one": [{"mood": "better"}]})
    await one.leave()
    await other.until(lambda: other.presence() == {})


async def test_a_private_topic_asks_the_policies(realtime_client: Any) -> None:
    ada = await sync_to_async(user)()
    client = await realtime_client(user=ada)
    with pytest.raises(Refused, match="refuses the join on realtime:room") as refused:
        await client.join("room", private=True)
    assert refused.value.reason.startswith("Unauthorized")
    await sync_to_async(allow)("receive_broadcast")
    channel = await client.join("room", private=True)
    with pytest.raises(Refused):
        await channel.broadcast("said", {})


async def test_a_token_is_taken_as_it_is_and_a_wrong_one_is_refused(realtime_client: Any) -> None:
    from tests.support.tokens import token

    ada = await sync_to_async(user)()
    await sync_to_async(policy)({"owner": "$user.id"})
    client = await realtime_client(token=token(ada.pk))
    channel = await client.join("room", changes=[Note])
    await Note.objects.acreate(title="mine", owner=ada)
    await channel.next_change(Note)
    with pytest.raises(Refused, match="refuses the connection") as refused:
        await realtime_client(token=token(ada.pk, key="another key, which is long enough, too"))
    assert refused.value.code == 4401


async def test_an_inactive_user_is_refused_and_one_who_is_switched_off_is_closed(
    realtime_client: Any,
) -> None:
    ada = await sync_to_async(user)()
    client = await realtime_client(user=ada)
    channel = await client.join("room", changes=[Note])
    ada.is_active = False
    await ada.asave()
    assert await client.closed() == 4401
    with pytest.raises(AssertionError, match="closed the socket with 4401: token refused"):
        await channel.next_change(Note)
    with pytest.raises(Refused):
        await realtime_client(user=ada)


async def test_a_change_that_does_not_come_is_explained(realtime_client: Any) -> None:
    ada = await sync_to_async(user)()
    channel = await (await realtime_client(user=ada)).join("room", changes=[Note])
    with pytest.raises(AssertionError, match=r"Nothing of zoo\.Note was captured since the join"):
        await channel.next_change(Note, timeout=0.05)
    note = await Note.objects.acreate(title="Milk")
    with pytest.raises(AssertionError, match=r"No policy on zoo\.view_note lets anybody see"):
        await channel.next_change(Note, timeout=0.05)
    await sync_to_async(policy)({"owner": "$user.id"}, name="owners")
    with pytest.raises(AssertionError) as failed:
        await channel.next_change(Note, type="INSERT", timeout=0.05)
    text = str(failed.value)
    assert text.startswith("No INSERT of zoo.Note came on realtime:room in 0.05 seconds.")
    assert "Captured of zoo.Note since the join: INSERT." in text
    assert f"zoo.view_note on zoo.Note {note.pk} “Milk”: denied" in text and "owners: " in text


async def test_missing_triggers_are_named(realtime_client: Any) -> None:
    from realtime.wal import triggers

    channel = await (await realtime_client()).join("room", changes=[Note])
    await db(triggers.uninstall)
    try:
        await Note.objects.acreate(title="a")
        with pytest.raises(AssertionError, match="capture triggers of zoo_note are missing"):
            await channel.next_change(Note, timeout=0.05)
    finally:
        await db(triggers.reconcile)


async def test_a_server_makes_the_triggers_that_a_test_database_lacks(
    realtime_client: Any,
) -> None:
    from realtime.wal import triggers

    await sync_to_async(policy)(True)
    await sync_to_async(triggers.uninstall)()
    channel = await (await realtime_client()).join("room", changes=[Note])
    await Note.objects.acreate(title="a")
    await channel.next_change(Note)


async def test_a_model_that_is_not_published_is_an_error_of_the_test(realtime_client: Any) -> None:
    client = await realtime_client()
    with pytest.raises(SetupError, match=r"zoo.Member is not published.*put @publish on the class"):
        await client.join("room", changes=[Member])
    with pytest.raises(SetupError, match="changes is a list"):
        await client.join("room", changes=Note)
    with pytest.raises(Refused, match="refuses a binding of realtime:room") as refused:
        await client.join("room", changes=[{"table": "zoo_member"}])
    assert refused.value.hint.startswith("No table of this name is published.")
    await client.join("room")
    with pytest.raises(SetupError, match="has joined 'room' already"):
        await client.join("room")


async def test_a_sequencer_that_dies_loses_nothing(realtime_client: Any) -> None:
    await sync_to_async(policy)(True)
    channel = await (await realtime_client()).join("room", changes=[Note])
    await realtime_client.kill_sequencer()
    await Note.objects.acreate(title="a")
    with pytest.raises(AssertionError, match="The sequencer is dead"):
        await channel.next_change(Note, timeout=0.05)
    await realtime_client.kill_sequencer(numbering=True)
    realtime_client.start_sequencer()
    await Note.objects.acreate(title="b")
    assert [(await channel.next_change(Note)).new["title"] for _ in range(2)] == ["a", "b"]


@pytest.mark.parametrize("fault", ["drop", "double", "delay"])
async def test_a_layer_on_a_bad_day_loses_nothing(
    fault: str, realtime_client: Any, settings: Any
) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "realtime.testing.UnreliableLayer",
            "CONFIG": {fault: 0.5, "delay_seconds": 0.01, "seed": 3},
        }
    }
    await sync_to_async(policy)(True)
    channel = await (await realtime_client()).join("room", changes=[Note])
    titles = [str(number) for number in range(10)]
    for title in titles:
        await Note.objects.acreate(title=title)
        await realtime_client.settled()
    assert [(await channel.next_change(Note)).new["title"] for _ in titles] == titles
    await channel.nothing()


def test_a_test_that_is_not_async_does_without_await(realtime_client: Any) -> None:
    ada = user()
    policy({"owner": "$user.id"})
    channel = realtime_client(user=ada).join("room", changes=[Note], presence_key="ada")
    Note.objects.create(title="nobody's")
    Note.objects.create(title="mine", owner=ada)
    assert channel.next_change(Note, type="INSERT").new["title"] == "mine"
    channel.nothing()
    other = realtime_client().join("room")
    other.broadcast("said", {"text": "hello"})
    assert channel.next_broadcast("said").payload == {"text": "hello"}
    channel.track()
    other.until(lambda: "ada" in other.presence())
    realtime_client.kill_sequencer(numbering=True)
    Note.objects.create(title="later", owner=ada)
    realtime_client.start_sequencer()
    realtime_client.settled()
    assert channel.next_change(Note).new["title"] == "later"
    channel.untrack()
    other.until(lambda: other.presence() == {})
    channel.leave()
