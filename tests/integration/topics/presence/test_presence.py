"""Who is present: from a socket through the table and the bus to everybody who watches."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings

import realtime
from realtime.models import (
    Message,
    PresenceMember,
    PresenceNumber,
    Process,
    WalEntry,
    WalRelation,
)
from realtime.process import registry
from realtime.process.heartbeat import HeartbeatTiming
from realtime.process.hub import hub
from realtime.session.channel import Channel
from realtime.socket.topic_handler import TopicHandler
from realtime.topics.presence import store, tracker
from realtime.topics.presence.changes import PresenceChanges
from realtime.topics.presence.known import KnownPresence
from realtime.topics.presence.state import PresenceMeta
from realtime.topics.presence.store import PresenceRow
from realtime.wal import head
from tests.support.socket_client import Client, db
from tests.support.subscriptions import FakeSubscriber
from tests.support.tokens import token
from tests.support.waiting import auntil

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal", "closing_hub")]

TOPIC = "realtime:room"


@pytest.fixture
async def here() -> AsyncIterator[Callable[..., Any]]:
    """Joins a topic with presence: `await here("ann")`; returns client and state."""
    clients: list[Client] = []

    async def join(key: str = "", topic: str = TOPIC, **options: Any) -> tuple[Client, Any]:
        client = await Client(**options).connect()
        clients.append(client)
        reply = await client.join(topic, presence={"enabled": True, "key": key})
        assert reply["status"] == "ok", reply
        state = await client.until(lambda f: f[3] == "presence_state")
        return client, state[4]

    yield join
    for client in clients:
        await client.close()


async def track(client: Client, meta: Any, topic: str = TOPIC) -> str:
    return await client.push(topic, "presence", {"event": "track", "payload": meta})


async def diff(client: Client) -> Any:
    return (await client.until(lambda f: isinstance(f, list) and f[3] == "presence_diff"))[4]


def metas(presences: Any, key: str) -> list[Any]:
    return [
        {name: value for name, value in meta.items() if not name.startswith("phx_")}
        for meta in presences.get(key, {"metas": []})["metas"]
    ]


async def test_a_tracked_member_is_told_to_all_before_the_answer(here: Any) -> None:
    ann, state = await here("ann")
    bob, _ = await here("bob")
    assert state == {}
    ref = await track(ann, {"on": "laptop"})
    told = await ann.receive()
    assert told[:4] == [None, None, TOPIC, "presence_diff"]
    assert metas(told[4]["joins"], "ann") == [{"on": "laptop"}]
    assert await ann.receive() == [ref, ref, TOPIC, "phx_reply", {"status": "ok", "response": {}}]
    assert await diff(bob) == told[4]


async def test_who_tracks_first_gets_the_state_without_themselves_and_then_the_diff(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = await Client().connect()
    await client.join(TOPIC, presence={"enabled": False, "key": "ann"})
    read = tracker.read

    def late(*args: Any) -> Any:
        # Long enough for the row to be written, if nothing else holds that back.
        for _ in range(30):
            if PresenceMember.objects.exists():
                break
            time.sleep(0.01)
        return read(*args)

    monkeypatch.setattr(tracker, "read", late)
    first = await track(client, {"n": 1})
    last = await track(client, {"n": 2})
    state = await client.until(lambda f: f[3] == "presence_state")
    assert state[4] == {}
    told = await diff(client)
    assert metas(told["joins"], "ann") in ([{"n": 1}], [{"n": 2}])
    for ref in (first, last):
        await client.until(lambda f, ref=ref: f[1] == ref)
    await client.close()


async def test_untracking_at_once_leaves_nobody_behind() -> None:
    client = await Client().connect()
    await client.join(TOPIC, presence={"enabled": False, "key": "ann"})
    await track(client, {"n": 1})
    ref = await client.push(TOPIC, "presence", {"event": "untrack"})
    await client.until(lambda f: f[1] == ref)
    assert not await db(PresenceMember.objects.exists)
    await client.close()


async def test_a_later_join_begins_with_the_state(here: Any) -> None:
    ann, _ = await here("ann")
    await ann.reply(await track(ann, {"n": 1}))
    _, state = await here("bob")
    assert metas(state, "ann") == [{"n": 1}]


async def test_an_update_replaces_a_meta_and_the_same_again_is_no_news(here: Any) -> None:
    ann, _ = await here("ann")
    bob, _ = await here("bob")
    await ann.reply(await track(ann, {"n": 1}))
    before = (await diff(bob))["joins"]["ann"]["metas"][0]
    await ann.reply(await track(ann, {"n": 1}))
    await ann.reply(await track(ann, {"n": 2}))
    told = await diff(bob)
    (after,) = told["joins"]["ann"]["metas"]
    assert after["n"] == 2
    assert after["phx_ref_prev"] == before["phx_ref"]
    assert told["leaves"]["ann"]["metas"] == [before]


async def test_two_sockets_of_one_key_leave_one_by_one(here: Any) -> None:
    watcher, _ = await here("watcher")
    laptop, _ = await here("ann")
    phone, _ = await here("ann")
    await laptop.reply(await track(laptop, {"on": "laptop"}))
    await phone.reply(await track(phone, {"on": "phone"}))
    await diff(watcher), await diff(watcher)
    await laptop.close()
    assert metas((await diff(watcher))["leaves"], "ann") == [{"on": "laptop"}]
    assert await db(realtime.presence, "room") == {"ann": [{"on": "phone"}]}


async def test_an_untrack_and_a_leave_are_told(here: Any) -> None:
    watcher, _ = await here("watcher")
    ann, _ = await here("ann")
    for goodbye in ("presence", "phx_leave"):
        await ann.reply(await track(ann, {}))
        await diff(watcher)
        payload = {"event": "untrack"} if goodbye == "presence" else {}
        await ann.reply(await ann.push(TOPIC, goodbye, payload, join_ref="1"))
        assert metas((await diff(watcher))["leaves"], "ann") == [{}]


async def test_a_channel_that_did_not_ask_is_told_from_its_own_track_on(here: Any) -> None:
    ann, _ = await here("ann")
    await ann.reply(await track(ann, {"n": 1}))
    bob = await Client().connect()
    await bob.join(TOPIC, presence={"key": "bob"})
    await bob.reply(await track(bob, {"n": 2}))
    (state,) = [frame for frame in bob.unread if frame[3] == "presence_state"]
    assert metas(state[4], "ann") == [{"n": 1}]
    await bob.close()


async def test_a_key_is_made_up_for_who_brings_none(here: Any) -> None:
    ann, _ = await here()
    await track(ann, {})
    (key,) = (await diff(ann))["joins"]
    assert len(key) == 36


async def test_a_public_and_a_private_topic_of_one_name_are_two_rooms(here: Any) -> None:
    ann, _ = await here("ann")
    service = await Client(token=_service()).connect()
    await service.join(TOPIC, private=True, presence={"enabled": True, "key": "job"})
    await service.reply(await track(service, {}))
    assert await ann.silent()
    assert await db(realtime.presence, "room") == {}
    assert await db(lambda: realtime.presence("room", private=True)) == {"job": [{}]}
    await service.close()


def _service() -> str:

    return token("job", role="service_role")


async def test_what_the_database_cannot_hold_is_refused_and_spoils_nothing(here: Any) -> None:
    ann, _ = await here("ann")
    bob, _ = await here("bob")
    first = await track(ann, {"x": "a\0b"})
    second = await track(bob, {"n": 1})
    assert (await bob.reply(second))["status"] == "ok"
    answer = await ann.reply(first)
    if answer["status"] == "error":
        assert answer["response"]["reason"].startswith("Presence could not be stored: ")
        assert list(await db(realtime.presence, "room")) == ["bob"]


async def test_the_rows_of_a_process_that_is_taken_for_dead_go_and_come_again(here: Any) -> None:
    hub().heartbeat_timing = HeartbeatTiming(renew=0.3, announce=0.1)
    ann, _ = await here("ann")
    bob, _ = await here("bob")
    await ann.reply(await track(ann, {"n": 1}))
    await diff(bob)

    process = hub().id

    # At once, before the process renews its lease.
    @transaction.atomic
    def expire() -> None:
        Process.objects.filter(pk=process).update(lease="2000-01-01T00:00:00Z")
        registry.Registration("default", "another", Process.Kind.SERVER).renew(registry.Report())

    await db(expire)
    # The process lives after all: its next renewal finds out. A slow machine may tell both at once.
    told: dict[str, list[Any]] = {"leaves": [], "joins": []}
    while not all(told.values()):
        found = await diff(bob)
        for kind in told:
            told[kind] += metas(found[kind], "ann")
    assert told == {"leaves": [{"n": 1}], "joins": [{"n": 1}]}
    assert await db(realtime.presence, "room") == {"ann": [{"n": 1}]}


def elsewhere(number: int, *keys: str, process: str = "another") -> None:
    """Another process writes these members, each as its only one, and tells nobody."""
    registry.Registration("default", process, Process.Kind.SERVER).renew(registry.Report())
    rows = [
        PresenceRow(PresenceMeta(f"{process}-{key}", number, key, b'{"n":1}'), "room", False)
        for key in keys
    ]
    store.write("default", process, number, rows, [], [], whole=True)


def test_a_write_into_a_table_that_was_emptied_does_not_hide_it() -> None:
    elsewhere(1, "bob", "carl")
    PresenceMember.objects.all().delete()
    PresenceNumber.objects.all().delete()
    row = PresenceRow(PresenceMeta("another-dora", 2, "dora", b"{}"), "room", False)
    for new, gone in (([row], []), ([], [row])):
        with pytest.raises(store.RowsMissing):
            store.write("default", "another", 2, new, [], gone, passed=1)
    assert not PresenceNumber.objects.exists()
    store.write("default", "another", 2, [row], [], [], whole=True, passed=1)
    store.write("default", "another", 4, [], [], [row], passed=2)
    assert PresenceNumber.objects.get().number == 4


async def test_rows_that_another_process_writes_are_told_here(here: Any) -> None:
    ann, _ = await here("ann")

    await db(elsewhere, 1, "bob")
    told = await diff(ann)
    assert told["joins"]["bob"]["metas"] == [{"phx_ref": "another-bob.1", "n": 1}]
    await db(registry.Registration("default", "another", Process.Kind.SERVER).leave)
    assert metas((await diff(ann))["leaves"], "bob") == [{"n": 1}]


async def test_a_crowd_that_comes_at_once_is_told_in_few_frames(here: Any) -> None:
    # However slow the machine is, what comes within a second is one frame.
    hub().dispatcher.presence.seconds_per_listener = 0.1
    watcher, _ = await here("watcher")
    crowd = [(await here(f"m{n}"))[0] for n in range(60)]
    for client in crowd:
        await track(client, {})
    seen: set[str] = set()
    frames = 0
    while len(seen) < 60:
        seen |= set((await diff(watcher))["joins"])
        frames += 1
    assert frames < 30


async def test_the_same_again_is_answered_while_the_first_waits_for_a_crowd(here: Any) -> None:
    presence = hub().dispatcher.presence
    presence.seconds_per_listener = 0.1
    async with presence.loaded("room", False):
        for number in range(60):
            presence.join(FakeSubscriber(str(number)), "room", False)
    ann, _ = await here("ann")
    first = await track(ann, {"n": 1})
    await auntil(lambda: hub().counters.presence)
    again = await track(ann, {"n": 1})
    for ref in (first, again):
        assert (await ann.reply(ref))["status"] == "ok"


def _begin_epoch() -> None:
    head.begin_epoch(connection)


@pytest.mark.parametrize("missed", ["in a resync", "by a fault of code"])
async def test_a_track_whose_change_was_missed_is_answered(
    here: Any, monkeypatch: pytest.MonkeyPatch, missed: str
) -> None:
    ann, _ = await here("ann")
    bob, _ = await here("bob")
    taken: list[PresenceChanges] = []

    def misses(self: KnownPresence, message: PresenceChanges) -> set[Any]:
        taken.append(message)
        monkeypatch.undo()
        if missed == "by a fault of code":
            raise TypeError
        return set()

    # An empty log begins no other epoch.
    await db(realtime.broadcast, "room", "e", {}, durable=True)
    await bob.until(lambda f: f[3] == "broadcast")
    monkeypatch.setattr(KnownPresence, "hear", misses)
    ref = await track(ann, {"n": 1})
    await auntil(lambda: taken, "the change of the table")
    if missed == "in a resync":
        await db(_begin_epoch)
        # The next change tells the process of the new epoch.
        await db(realtime.broadcast, "room", "e", {}, durable=True)
    assert (await ann.reply(ref))["status"] == "ok"
    assert metas((await diff(bob))["joins"], "ann") == [{"n": 1}]


async def test_a_track_is_answered_where_its_channel_left_or_failed_meanwhile(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, _ = await here("ann")
    ref = await track(ann, {"n": 1})
    await ann.push(TOPIC, "phx_leave", {}, join_ref="1")
    assert (await ann.reply(ref))["status"] == "ok"

    async def fails(handler: TopicHandler, channel: Channel) -> None:
        raise RuntimeError("with a secret")

    monkeypatch.setattr(TopicHandler, "subscribe_presence", fails)
    await ann.join()
    ref = await track(ann, {"n": 2})
    response = (await ann.reply(ref))["response"]
    assert response["reason"] == "Presence could not be stored: the server has failed"


async def test_a_topic_has_no_more_members_than_the_limit() -> None:
    with override_settings(REALTIME={"LIMITS": {"members_per_topic": 2}}):
        clients = [await Client().connect() for _ in range(4)]
        for client in clients:
            await client.join(TOPIC)
            await client.join("realtime:other", ref="2")
        answers = [await client.reply(await track(client, {})) for client in clients]
        assert [answer["status"] for answer in answers] == ["ok", "ok", "error", "error"]
        assert answers[2]["response"]["reason"].endswith("the topic has 2 members already")
        # Members may change what they show, another topic has places of its own, and a place that
        # is given back is free.
        first, _, last, _ = clients
        assert (await first.reply(await track(first, {"n": 1})))["status"] == "ok"
        elsewhere = await last.push(
            "realtime:other", "presence", {"event": "track", "payload": {}}, join_ref="2"
        )
        assert (await last.reply(elsewhere))["status"] == "ok"
        await first.reply(await first.push(TOPIC, "presence", {"event": "untrack"}))
        assert (await last.reply(await track(last, {})))["status"] == "ok"
        assert await db(PresenceMember.objects.count) == 3
        for client in clients:
            await client.close()


async def test_a_refusal_leaves_the_writer_at_work_for_later_calls() -> None:
    with override_settings(REALTIME={"LIMITS": {"members_per_topic": 1}}):
        one, other = await Client().connect(), await Client().connect()
        for client in (one, other):
            await client.join(TOPIC)
        await one.reply(await track(one, {}))
        refs = [await track(other, {"n": n}) for n in range(20)]
        for ref in refs:
            assert (await other.reply(ref))["status"] == "error"
        await one.close()
        await auntil(lambda: len(hub().presence) == 0)
        assert (await other.reply(await track(other, {})))["status"] == "ok"
        await other.close()


async def test_a_presence_that_cannot_be_written_keeps_no_other_from_it(here: Any) -> None:
    ann, _ = await here("ann")
    # Deeper than the encoder of the database's driver follows.
    nested = b"[" * 990 + b"]" * 990
    answers: dict[str, str | None] = {}
    for id_, meta in (("deep", b'{"a":%b}' % nested), ("flat", b'{"a":1}')):
        row = PresenceRow(PresenceMeta(id_, 0, id_, meta), "room", False)
        hub().presence.track(row, partial(answers.__setitem__, id_))
    await auntil(lambda: len(answers) == 2, "both answers")
    assert answers["flat"] is None
    assert (await ann.reply(await track(ann, {"n": 1})))["status"] == "ok"


async def test_a_topic_nobody_watches_is_not_kept(here: Any) -> None:
    ann, _ = await here("ann")
    await ann.reply(await track(ann, {}))
    assert len(hub().dispatcher.presence) == 1
    await ann.reply(await ann.push(TOPIC, "phx_leave", {}, join_ref="1"))
    assert len(hub().dispatcher.presence) == 0
    await auntil(lambda: not len(hub().presence))


async def test_a_flood_of_presence_moves_neither_the_head_nor_the_log(here: Any) -> None:
    await here("ann")

    def log() -> tuple[int, int]:
        return realtime.head(), WalEntry.objects.count()

    before = await db(log)
    answers: list[str | None] = []
    for turn in range(20):
        for number in range(50):
            meta = PresenceMeta(f"flood-{number}", 0, f"m{number}", b'{"turn":%d}' % turn)
            hub().presence.track(PresenceRow(meta, "room", False), answers.append)
        await auntil(lambda turn=turn: len(answers) == 50 * (turn + 1), "all answers")
    assert await db(PresenceMember.objects.count) == 50
    for number in range(50):
        hub().presence.untrack(f"flood-{number}", answers.append)
    await auntil(lambda: len(answers) == 1_050, "all answers")
    assert set(answers) == {None}
    assert await db(log) == before
    assert hub().position.seq == before[0]


def _left_by_an_older_version() -> None:
    Message.objects.create(topic="else", event="e", payload={})
    like = WalEntry.objects.filter(table_name="realtime_message").latest("id")
    relation = WalRelation.objects.get(pk=like.relation_id)
    names = ("realtime_message", "realtime_presence")
    relation.pk, relation.table_name = "older", names[1]
    relation.definition = relation.definition.replace(*names).replace(like.relation_id, "older")
    relation.save(force_insert=True)
    like.pk, like.relation_id = None, "older"
    like.save(force_insert=True)


async def test_entries_of_presence_that_an_older_version_left_are_passed_over(here: Any) -> None:
    ann, _ = await here("ann")
    await db(_left_by_an_older_version)
    await db(realtime.broadcast, "room", "e", {}, durable=True)
    assert (await ann.receive())[3] == "broadcast"
    assert (await ann.reply(await track(ann, {"n": 1})))["status"] == "ok"


async def test_members_that_the_database_has_lost_are_written_again_and_nobody_is_told(
    here: Any,
) -> None:
    bob, _ = await here("bob")
    ann, _ = await here("ann")
    await ann.reply(await track(ann, {"n": 1}))
    assert list((await diff(bob))["joins"]) == ["ann"]

    # As after a crash of PostgreSQL, which empties unlogged tables.
    @transaction.atomic
    def lose() -> None:
        PresenceMember.objects.all().delete()
        PresenceNumber.objects.all().delete()

    await db(lose)
    await auntil(lambda: db(PresenceMember.objects.exists), "the member")
    assert await db(realtime.presence, "room") == {"ann": [{"n": 1}]}
    assert await bob.silent()


async def test_a_table_that_went_back_is_put_right(here: Any) -> None:
    ann, _ = await here("ann")
    await ann.reply(await track(ann, {"n": 1}))
    process = hub().id

    @transaction.atomic
    def restore() -> None:
        PresenceNumber.objects.filter(pk=process).update(number=0)
        PresenceMember.objects.create(
            id="left", process_id=process, topic="room", private=False, key="gone", version=1,
            meta={},
        )  # fmt: skip

    await db(restore)
    await auntil(lambda: db(lambda: list(realtime.presence("room")) == ["ann"]), "the truth")


async def test_members_of_a_process_that_loses_its_numbers_stay_until_it_has_ended(
    here: Any,
) -> None:
    ann, _ = await here("ann")
    await db(elsewhere, 1, "bob")
    assert list((await diff(ann))["joins"]) == ["bob"]
    await db(PresenceMember.objects.all().delete)
    await db(PresenceNumber.objects.all().delete)
    # Found by a look, after which bob is still there.
    await db(partial(elsewhere, process="third"), 1, "cleo")
    told = await diff(ann)
    assert (list(told["joins"]), list(told["leaves"])) == (["cleo"], [])
    await db(registry.Registration("default", "another", Process.Kind.SERVER).leave)
    assert list((await diff(ann))["leaves"]) == ["bob"]


async def test_v1_is_told_in_its_own_shape(here: Any) -> None:
    ann, _ = await here("ann")
    old = await Client(vsn="1.0.0").connect()
    config = {"config": {"presence": {"enabled": True, "key": "old"}}}
    join = {"topic": TOPIC, "event": "phx_join", "payload": config, "ref": "1", "join_ref": "1"}
    await old.raw.send_to(text_data=json.dumps(join))
    state = await old.until(lambda f: f["event"] == "presence_state")
    assert state == {"topic": TOPIC, "event": "presence_state", "payload": {}, "ref": None}
    await ann.reply(await track(ann, {"n": 1}))
    told = await old.until(lambda f: f["event"] == "presence_diff")
    assert metas(told["payload"]["joins"], "ann") == [{"n": 1}]
    await old.close()
