"""Private topics: four permissions, each enforced apart, from the join to every later moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.test import override_settings

from auth_rls.models import Policy
from realtime.models import PresenceMember, Topic
from realtime.topics.presence import tracker
from tests.support.socket_client import Client, closed, db
from tests.support.tokens import token
from tests.support.waiting import PATIENCE_SECONDS, auntil
from tests.zoo.models import Member, Team

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

TOPIC = "realtime:room"
MESSAGE = {"type": "broadcast", "event": "ping", "payload": {"n": 1}}
REFUSED = "Unauthorized: You do not have permissions to read from this Channel topic: room"


@pytest.fixture
def allow(transactional_db: None) -> Callable[..., Policy]:
    """Makes a policy on topics: `allow("receive_broadcast", using=True)`."""

    def make(action: str, using: Any = True, **fields: Any) -> Policy:
        permission = Permission.objects.get(codename=action, content_type__app_label="realtime")
        values = {"name": f"{action} {Policy.objects.count()}", "audience": "anyone", **fields}
        made = Policy(permission=permission, using=using, **values)
        # Stored as a fixture would store it: also one that cannot be used.
        made.save_base(raw=True, force_insert=True)
        return made

    return make


async def joined(client: Client, topic: str = TOPIC, **config: Any) -> Client:
    reply = await client.join(topic, private=True, **config)
    assert reply["status"] == "ok", reply
    return client


async def heard(client: Client) -> Any:
    return (await client.until(lambda f: isinstance(f, list) and f[3] == "broadcast"))[4]


async def send(client: Client, topic: str = TOPIC) -> Any:
    return await client.reply(await client.push(topic, "broadcast", MESSAGE))


async def track(client: Client, topic: str = TOPIC) -> Any:
    payload = {"event": "track", "payload": {"n": 1}}
    return await client.reply(await client.push(topic, "presence", payload))


async def test_without_a_policy_nobody_joins_a_private_topic(connect: Any) -> None:
    reply = await (await connect()).join(TOPIC, private=True)
    assert reply == {"status": "error", "response": {"reason": REFUSED}}


async def test_who_may_only_send_or_be_present_has_nothing_to_join_for(
    connect: Any, allow: Any
) -> None:
    await db(allow, "send_broadcast")
    await db(allow, "track_presence")
    reply = await (await connect()).join(TOPIC, private=True)
    assert reply["response"]["reason"] == REFUSED


async def test_each_of_the_four_permissions_is_enforced_apart(connect: Any, allow: Any) -> None:
    everything = {
        "receive_broadcast": "hear",
        "send_broadcast": "send",
        "view_presence": "watch",
        "track_presence": "track",
    }
    for action, claim in everything.items():
        await db(allow, action, {"topic": f"$claims.{claim}"})
    every = dict.fromkeys(everything.values(), "room")
    options = {"broadcast": {"ack": True}, "presence": {"enabled": True}}
    full = await joined(await connect(token=token("full", **every)), **options)
    await full.until(lambda f: f[3] == "presence_state")
    deaf = await joined(await connect(token=token("deaf", **{**every, "hear": "x"})), **options)
    blind = await joined(await connect(token=token("blind", **{**every, "watch": "x"})), **options)
    mute = await joined(await connect(token=token("mute", **{**every, "send": "x"})), **options)
    ghost = await joined(await connect(token=token("ghost", **{**every, "track": "x"})), **options)

    answer = await send(mute)
    assert answer["response"]["reason"].startswith(
        "Unauthorized: You do not have permissions to write"
    )
    answer = await track(ghost)
    assert answer["response"]["reason"].startswith(
        "Unauthorized: You do not have permissions to track"
    )
    assert (await send(full))["status"] == "ok"
    for client in (blind, mute, ghost):
        assert await heard(client) == {**MESSAGE, "meta": {"user_id": "full"}}
    assert (await track(blind))["status"] == "ok"
    for client in (full, deaf, mute, ghost):
        await client.until(lambda f: f[3] == "presence_diff")
    assert not any(frame[3] == "broadcast" for frame in deaf.unread)
    assert not any(frame[3].startswith("presence") for frame in blind.unread)
    assert await deaf.raw.receive_nothing(0.1)
    assert await blind.raw.receive_nothing(0.1)


async def test_rooms_by_membership_with_a_prefix(connect: Any, allow: Any) -> None:
    def world() -> tuple[User, Team, Team]:
        ada = User.objects.create_user("ada")
        mine, other = Team.objects.create(name="mine"), Team.objects.create(name="other")
        Member.objects.create(user=ada, team=mine)
        mine_only = {"user_id": "$user.id"}
        rooms = {"select": "team_id", "from": "zoo.Member", "where": mine_only, "prefix": "team:"}
        allow("receive_broadcast", {"topic__in": rooms})
        return ada, mine, other

    ada, mine, other = await db(world)
    client = await connect(token=token(ada.pk))
    await joined(client, f"realtime:team:{mine.pk}")
    reply = await client.join(f"realtime:team:{other.pk}", private=True)
    assert reply["status"] == "error"


async def test_a_membership_that_ends_ends_the_channel_and_one_that_begins_opens_it(
    connect: Any, allow: Any
) -> None:
    def world() -> tuple[User, Member]:
        ada, team = User.objects.create_user("ada"), Team.objects.create(name="mine")
        rooms = {"select": "role", "from": "zoo.Member", "where": {"user_id": "$user.id"}}
        allow("receive_broadcast", {"topic__in": rooms})
        return ada, Member.objects.create(user=ada, team=team, role="room")

    ada, member = await db(world)
    client = await joined(await connect(token=token(ada.pk)))
    await db(member.delete)
    system = await client.until(lambda f: f[3] == "system")
    assert system[4]["message"] == (
        "You no longer have permission to read from this Channel topic: room"
    )
    assert (await client.receive())[3] == "phx_error"
    assert (await client.join(TOPIC, private=True))["status"] == "error"
    await db(member.save, force_insert=True)
    await joined(client)


async def test_losing_one_of_two_permissions_mutes_and_gaining_it_again_resumes(
    connect: Any, allow: Any
) -> None:
    await db(allow, "view_presence")
    hear = await db(allow, "receive_broadcast")
    service = await joined(await connect(token=token("job", "service_role")))
    client = await joined(await connect(), presence={"enabled": True})
    await client.until(lambda f: f[3] == "presence_state")

    async def hears() -> bool:
        """Whether a broadcast comes before a presence that was sent behind it."""
        await send_quietly(service)
        await track_anew(service, client)
        frames, client.unread = client.unread, []
        said = [frame[4] for frame in frames if frame[3] == "broadcast"]
        assert all(each == {**MESSAGE, "meta": {"user_id": "job"}} for each in said)
        return bool(said)

    async def hears_nothing() -> bool:
        return not await hears()

    assert await hears()
    hear.enabled = False
    await db(hear.save)
    await auntil(hears_nothing, "the loss of the right to receive")
    assert await hears_nothing()
    hear.enabled = True
    await db(hear.save)
    await auntil(hears, "the right to receive again")


async def send_quietly(client: Client) -> None:
    await client.push(TOPIC, "broadcast", MESSAGE)


async def track_anew(client: Client, watcher: Client) -> None:
    payload = {"event": "track", "payload": {"at": time.monotonic()}}
    await client.push(TOPIC, "presence", payload)
    await watcher.until(lambda f: f[3] == "presence_diff")


async def test_losing_the_right_to_be_present_takes_the_presence(connect: Any, allow: Any) -> None:
    await db(allow, "view_presence")
    may_track = await db(allow, "track_presence")
    client = await joined(await connect(), presence={"enabled": True, "key": "me"})
    assert (await track(client))["status"] == "ok"
    may_track.enabled = False
    await db(may_track.save)
    diff = await client.until(lambda f: f[3] == "presence_diff" and "me" in f[4]["leaves"])
    assert diff[4]["joins"] == {}
    assert (await track(client))["status"] == "error"


async def test_a_right_to_be_present_that_is_lost_while_the_state_is_read_does_not_count(
    connect: Any, allow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db(allow, "view_presence")
    may_track = await db(allow, "track_presence")
    may_send = await db(allow, "send_broadcast")
    config = {"presence": {"enabled": False, "key": "me"}, "broadcast": {"ack": True}}
    client = await joined(await connect(), **config)
    real, reads, go = tracker.read, [0], threading.Event()

    def read_late(*arguments: Any) -> Any:
        reads[0] += 1
        assert go.wait(PATIENCE_SECONDS)
        return real(*arguments)

    monkeypatch.setattr(tracker, "read", read_late)
    ref = await client.push(TOPIC, "presence", {"event": "track", "payload": {"n": 1}})
    await auntil(lambda: reads[0] == 1, "the read of the state")
    for right in (may_track, may_send):
        right.enabled = False
        await db(right.save)

    async def may_not_send() -> bool:
        reply = await send(client)
        return reply["status"] == "error" and "permissions" in reply["response"]["reason"]

    # The right that was taken last shows that the other is gone.
    await auntil(may_not_send, "the loss of the right to send", every=0.05)
    go.set()
    assert "do not have permissions to track" in (await client.reply(ref))["response"]["reason"]
    assert not await db(PresenceMember.objects.exists)


async def test_gaining_the_right_to_see_brings_the_state(connect: Any, allow: Any) -> None:
    await db(allow, "receive_broadcast")
    see = await db(allow, "view_presence", enabled=False)
    service = await joined(await connect(token=token("job", "service_role")))
    await track(service)
    client = await joined(await connect(), presence={"enabled": True})
    see.enabled = True
    await db(see.save)
    state = await client.until(lambda f: f[3] == "presence_state")
    assert len(state[4]) == 1
    await track_anew(service, client)


async def test_a_permission_of_a_group_counts_and_its_loss_too(connect: Any, allow: Any) -> None:
    def world() -> tuple[User, Group]:
        ada, group = User.objects.create_user("ada"), Group.objects.create(name="staff")
        policy = allow("receive_broadcast", audience="permission")
        group.permissions.add(policy.permission)
        ada.groups.add(group)
        return ada, group

    ada, group = await db(world)
    client = await joined(await connect(token=token(ada.pk)))
    await db(ada.groups.remove, group)
    await client.until(lambda f: f[3] == "phx_error")


async def test_a_user_who_is_disabled_leaves_a_channel_without_changes_too(
    connect: Any, allow: Any
) -> None:
    ada = await db(User.objects.create_user, "ada")
    client = await connect(token=token(ada.pk))
    assert (await client.join(TOPIC))["status"] == "ok"
    await db(User.objects.filter(pk=ada.pk).update, is_active=False)
    assert await closed(client) == 4401


async def test_another_token_brings_other_rights(connect: Any, allow: Any) -> None:
    await db(allow, "receive_broadcast")
    await db(allow, "send_broadcast", {"topic": "$claims.room"})
    client = await joined(await connect(token=token("a")), broadcast={"ack": True})
    assert (await send(client))["status"] == "error"
    await client.push(TOPIC, "access_token", {"access_token": token("a", room="room")})
    answers = [await send(client)]
    while answers[-1]["status"] == "error":
        answers.append(await send(client))
    await client.push(TOPIC, "access_token", {"access_token": token("a", room="other")})
    while answers[-1]["status"] == "ok":
        answers.append(await send(client))


async def test_a_policy_that_cannot_be_understood_lets_nobody_in(
    connect: Any, allow: Any, caplog: Any
) -> None:
    await db(allow, "receive_broadcast", {"colour": "red"})
    reply = await (await connect()).join(TOPIC, private=True)
    assert reply["response"]["reason"] == REFUSED


async def test_only_private_topics_where_public_ones_are_switched_off(
    connect: Any, allow: Any
) -> None:
    await db(allow, "receive_broadcast")
    with override_settings(REALTIME={"PRIVATE_ONLY": True}):
        client = await connect()
        reply = await client.join(TOPIC)
        assert reply["response"]["reason"].startswith("PrivateOnly: ")
        await joined(client)


async def test_the_object_door_says_what_the_stream_does(allow: Any) -> None:
    def ask() -> list[bool]:
        ada = User.objects.create_user("ada")
        allow("send_broadcast", {"topic__startswith": "team:"}, audience="authenticated")
        topics = [Topic("team:1"), Topic("other")]
        return [ada.has_perm("realtime.send_broadcast", topic) for topic in topics] + [
            ada.has_perm("realtime.receive_broadcast", Topic("team:1")),
            ada.has_perm("realtime.view_topic", Topic("team:1")),
        ]

    assert await db(ask) == [True, False, False, False]


def test_topics_have_no_table_and_their_four_permissions(transactional_db: None) -> None:
    assert Topic._meta.db_table not in connection.introspection.table_names()
    codenames = Permission.objects.filter(content_type__model="topic")
    assert set(codenames.values_list("codename", flat=True)) == set(Topic.row_actions)
