"""Resuming: what was missed comes once, in order, and costs as little as it can."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections

from auth_rls import Subject
from auth_rls.models import Policy
from realtime.delivery.asgi_outbox import AsgiOutbox
from realtime.event_log import sequencer
from realtime.event_log.distance import Distances
from realtime.event_log.sequencer import Head
from realtime.models import Message, WalEntry
from realtime.process.hub import hub
from realtime.subscriptions.replay.bounds import ReplayBounds
from realtime.subscriptions.request import Request
from realtime.wal.head import read_head
from tests.support.socket_client import Client, db
from tests.support.subscriptions import FakeSubscriber, Server, bindings, counting
from tests.support.waiting import auntil
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal", "closing_hub")]


async def notes(count: int) -> None:
    await db(Note.objects.bulk_create, [Note(title=str(number)) for number in range(count)])


@pytest.fixture
async def server() -> Server:
    made = Server()
    await made.start()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("named", ["seq", "epoch and seq", "commit_timestamp"])
async def test_five_thousand_clients_that_resume_within_the_ring_cost_no_query_each(
    server: Server, granted: Any, named: str
) -> None:
    await db(granted, "view_note")
    await server.feed()
    await notes(20)
    await server.feed()
    last = (server.log.since(server.log.seq - 4) or ())[0]
    since: Any = last.seq
    if named == "epoch and seq":
        since = f"{server.log.epoch}:{since}"
    elif named == "commit_timestamp":
        since = last.commit_timestamp
    asked = bindings(since=since)
    subscribers = [FakeSubscriber(str(number)) for number in range(5_000)]
    with counting() as statements:
        await asyncio.gather(
            *(
                server.subscriptions.add(subscriber, Request(Subject.anonymous(), asked))
                for subscriber in subscribers
            )
        )
        await auntil(lambda: not any(map(server.channels.replaying, subscribers)))
    assert all(len(subscriber.frames) == 3 for subscriber in subscribers)
    assert {tuple(subscriber.notices) for subscriber in subscribers} == {
        (f"caught up {server.log.seq}",)
    }
    # The policies, once in a while, for all together; of the log nothing at all.
    assert len(statements) < 100
    assert not [sql for sql in statements if re.search('FROM "?realtime_wal', sql)]


async def test_live_sets_that_resume_at_once_ask_together_whether_a_verdict_changed(
    server: Server, granted: Any
) -> None:
    await db(granted, "view_note")
    await server.feed()
    await notes(5)
    await server.feed()
    asked = bindings(since=server.log.seq - 2, live=True)
    subscribers = [FakeSubscriber(str(number)) for number in range(300)]
    with counting() as statements:
        await asyncio.gather(
            *(
                server.subscriptions.add(subscriber, Request(Subject.anonymous(), asked))
                for subscriber in subscribers
            )
        )
        await auntil(lambda: not any(map(server.channels.replaying, subscribers)))
    assert all(len(subscriber.frames) == 2 for subscriber in subscribers)
    # One by one it would be a statement each. How many share one depends on how fast they come.
    assert len([sql for sql in statements if "realtime_wal" in sql]) < len(subscribers)


async def test_replays_of_one_range_read_the_table_once() -> None:
    server = Server(ring=1)
    await server.start()
    await notes(30)
    await server.feed()
    reads: list[tuple[int, int]] = []
    read, release = server.reader.deep, asyncio.Event()

    async def slow(after: int, upto: int) -> Any:
        reads.append((after, upto))
        await release.wait()
        return await read(after, upto)

    server.reader.deep = slow
    subscribers = [FakeSubscriber(str(number)) for number in range(40)]
    for number, subscriber in enumerate(subscribers):
        # Cursors of their own, but near to each other.
        since = server.log.seq - 20 + number % 5
        await server.subscriptions.add(
            subscriber, Request(Subject.service(), bindings(since=since))
        )
    await auntil(lambda: reads)
    release.set()
    await auntil(lambda: not any(map(server.channels.replaying, subscribers)))
    assert [len(subscriber.frames) for subscriber in subscribers] == [
        20 - number % 5 for number in range(40)
    ]
    assert len(reads) == 1


@pytest.mark.parametrize("ring", [1, 1_000])
async def test_a_missed_change_is_encoded_once_for_all_who_come_back_alike(ring: int) -> None:
    server = Server(ring)
    await server.start()
    await notes(30)
    await server.feed()
    subscribers = [FakeSubscriber(str(number)) for number in range(40)]
    await asyncio.gather(
        *(
            server.subscriptions.add(
                subscriber,
                Request(Subject.service(), bindings(since=server.log.seq - 10 - number)),
            )
            for number, subscriber in enumerate(subscribers[:20])
        ),
        *(
            server.subscriptions.add(
                subscriber, Request(Subject.service(), bindings(since=server.log.seq - 5))
            )
            for subscriber in subscribers[20:]
        ),
    )
    await auntil(lambda: not any(map(server.channels.replaying, subscribers)))
    assert [len(subscriber.frames) for subscriber in subscribers] == [
        *(10 + number for number in range(20)),
        *[5] * 20,
    ]
    assert server.counters.frames_out == sum(len(each.frames) for each in subscribers)
    assert server.counters.encoded == 29


async def test_subjects_who_come_back_at_once_get_each_what_it_would_get_alone(
    people: list[Any],
) -> None:
    team, ada, bob = people
    await db(lambda: Member.objects.create(team=team, user=ada.user))
    server = Server()
    await server.start()
    begin = server.log.seq
    await db(
        Note.objects.bulk_create,
        [Note(title="ab"[number % 2], team=team if number % 3 else None) for number in range(24)],
    )
    await server.feed()

    def change() -> None:
        for note in Note.objects.filter(title="a")[:6]:
            note.team = None if note.team else team
            note.save()
        Note.objects.filter(title="b")[3].delete()

    await db(change)
    await server.feed()
    choice = Random(7)
    asked: list[tuple[Subject, dict[str, Any]]] = [
        (
            choice.choice([ada, bob, Subject.service(), Subject.anonymous()]),
            {
                "since": choice.randint(begin, server.log.seq),
                **choice.choice([{}, {"filter": "title=eq.a"}, {"filter": "title=eq.b"}]),
                **choice.choice([{}, {"event": "UPDATE"}, {"select": ["title"]}]),
            },
        )
        for _ in range(60)
    ]
    subscribers = [FakeSubscriber(str(number)) for number in range(len(asked))]
    await asyncio.gather(
        *(
            server.subscriptions.add(subscriber, Request(subject, bindings(**binding)))
            for subscriber, (subject, binding) in zip(subscribers, asked, strict=True)
        )
    )
    await auntil(lambda: not any(map(server.channels.replaying, subscribers)))
    for subscriber, (subject, binding) in zip(subscribers, asked, strict=True):
        alone = Server()
        await alone.start()
        single = await alone.resumed(subject=subject, **binding)
        assert subscriber.frames == single.frames
        assert subject.role != "anon" or not subscriber.frames
    assert {len(subscriber.frames) for subscriber in subscribers} != {0}
    assert server.counters.encoded < server.counters.frames_out


async def test_a_block_of_the_log_that_was_read_serves_those_who_come_later_too() -> None:
    server = Server(ring=1)
    await server.start()
    await notes(2_500)
    await server.feed()
    reads: list[int] = []
    read = server.reader.deep

    async def counted(after: int, upto: int) -> Any:
        reads.append(after)
        return await read(after, upto)

    server.reader.deep = counted
    begin = server.log.seq - 2_500
    for since in (begin, begin + 700, begin + 20):
        subscriber = await server.resumed(since)
        assert len(subscriber.frames) == 2_500 - (since - begin)
    assert len([after for after in reads if after < 2_000]) == 2


async def test_what_is_pruned_is_told_and_what_is_left_of_a_block_is_replayed() -> None:
    server = Server(ring=1)
    await server.start()
    await notes(30)
    await server.feed()
    last = server.log.seq
    await db(lambda: WalEntry.objects.filter(seq__lte=last - 10).delete())
    assert len((await server.resumed(last - 10)).frames) == 10
    lost = await server.resumed(last - 11)
    assert (lost.frames, lost.notices) == ([], ["resync"])


async def test_a_cursor_pruned_while_its_block_is_in_memory_gets_a_resync_alone() -> None:
    server = Server(ring=1)
    await server.start()
    await notes(2_600)
    await server.feed()
    last = server.log.seq
    # The first blocks of the log are read, and stay in memory.
    assert len((await server.resumed(last - 2_600)).frames) == 2_600
    await db(lambda: WalEntry.objects.filter(seq__lte=last - 1_000).delete())
    lost = await server.resumed(last - 2_500)
    assert (lost.frames, lost.notices) == ([], ["resync"])
    assert len((await server.resumed(last - 1_000)).frames) == 1_000


@pytest.mark.parametrize(("behind", "told"), [(10, "caught up"), (11, "resync")])
async def test_more_events_than_the_limit_are_a_resync(behind: int, told: str) -> None:
    server = Server(bounds=ReplayBounds(events=10))
    await server.start()
    await notes(20)
    await server.feed()
    subscriber = await server.resumed(server.log.seq - behind)
    assert subscriber.notices[0].startswith(told)
    assert len(subscriber.frames) == (0 if told == "resync" else behind)


def flood(count: int) -> None:
    """Stored broadcasts: entries that any client may cause, and that concern no row."""
    Message.objects.bulk_create(
        [Message(topic="t", event="e", payload=number) for number in range(3 * count)]
    )


def number_everything() -> None:
    while sequencer.number(connections["default"]):
        pass


async def test_a_flood_of_broadcasts_puts_no_cursor_out_of_reach() -> None:
    server = Server(bounds=ReplayBounds(events=10))
    await server.start()
    await notes(1)
    await server.feed()
    begin = server.log.seq
    await notes(4)
    await db(flood, 1_200)
    await notes(6)
    await server.feed()
    assert server.log.seq - begin > 3_600
    subscriber = await server.resumed(begin)
    assert subscriber.notices[0].startswith("caught up")
    assert len(subscriber.frames) == 10
    # One change more is one too many.
    lost = await server.resumed(begin - 1)
    assert lost.notices == ["resync"]


async def test_changes_are_counted_alike_whatever_was_counted_before() -> None:
    for _ in range(3):
        await notes(700)
        await db(flood, 300)
    await db(number_everything)
    head = await db(lambda: read_head(connections["default"]))
    known = Distances("default")
    for after, upto in ((0, head.seq), (1, 999), (999, 2_000), (500, 2_999), (0, head.seq)):
        published = WalEntry.objects.filter(seq__gt=after, seq__lte=upto, table_name="zoo_note")
        wanted = await db(published.count)
        assert await known.count(head.epoch, after, upto) == wanted
        assert await Distances("default").count(head.epoch, after, upto) == wanted


async def test_a_cursor_from_a_server_that_is_ahead_is_waited_for(server: Server) -> None:
    await notes(3)
    await db(lambda: sequencer.number(connections["default"]))
    head = await server.reader.head()
    subscriber = FakeSubscriber()
    await server.subscriptions.add(
        subscriber, Request(Subject.service(), bindings(since=head.seq - 1))
    )
    await asyncio.sleep(0)
    assert server.channels.replaying(subscriber)
    await server.feed()
    await auntil(lambda: not server.channels.replaying(subscriber))
    assert subscriber.notices == [f"caught up {head.seq}"]
    assert len(subscriber.frames) == 1
    nowhere = await server.resumed(head.seq + 1)
    assert nowhere.notices == ["resync"]


async def test_a_membership_that_changed_meanwhile_concerns_its_own_user_only(
    server: Server, granted: Any
) -> None:
    ada, bob = [await db(User.objects.create_user, name) for name in ("ada", "bob")]
    team = await db(Team.objects.create, name="team")
    rooms = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
    await db(granted, "view_note", using={"any": [{"is_public": True}, {"team__in": rooms}]})
    await server.rebinding.rebind()
    await notes(1)
    await server.feed()
    before = server.log.seq
    await db(Member.objects.create, user=ada, team=team)
    await db(Note.objects.create, title="a", is_public=True)
    subjects = [await db(Subject.from_user, user) for user in (ada, bob)]
    # Committed, numbered or not, is what counts.
    told = [(await server.resumed(before, subject, live=True)).notices[0] for subject in subjects]
    assert told == ["resync", f"caught up {before}"]
    await server.feed()
    told = [(await server.resumed(before, subject, live=True)).notices[0] for subject in subjects]
    assert told == ["resync", f"caught up {server.log.seq}"]
    # What changed at the cursor may have arrived in part; an ordinary binding keeps no set.
    place = next(e.seq for e in server.log.since(before) or () if e.relation.table == "zoo_member")
    told = [
        (await server.resumed(since, subjects[0], live=live)).notices[0]
        for since, live in ((place, True), (place + 1, True), (before, False))
    ]
    assert told == ["resync", *[f"caught up {server.log.seq}"] * 2]
    await db(User.objects.create_user, "somebody else")
    await db(Policy.objects.update, name="another name")
    await server.feed()
    assert (await server.resumed(place + 1, subjects[0], live=True)).notices[0] != "resync"


async def test_a_snapshot_that_its_client_does_not_take_is_cut_and_holds_up_nobody_else() -> None:
    server = Server(bounds=ReplayBounds(patience_seconds=0.05, slowest_link=10**8))
    await server.start()
    rows = [Note(title=str(number), body="x" * 1_000) for number in range(1_000)]
    await db(Note.objects.bulk_create, rows)
    await server.feed()
    slow, quick = FakeSubscriber("slow", stuck=True), FakeSubscriber("quick")
    asked = bindings(snapshot=True)
    for subscriber in (slow, quick):
        await server.subscriptions.add(subscriber, Request(Subject.service(), asked))
    await auntil(lambda: quick.notices and slow.notices)
    assert quick.notices == ["snapshot 1000"]
    assert slow.notices == [f"snapshot {len(slow.frames)} truncated"]
    assert 0 < len(slow.frames) < 1_000


async def test_an_emptied_table_is_read_anew_by_its_subscribers(server: Server) -> None:
    await notes(2)
    await server.feed()
    plain, kept = FakeSubscriber("plain"), FakeSubscriber("kept")
    await server.subscriptions.add(plain, Request(Subject.service(), bindings()))
    await server.subscriptions.add(
        kept, Request(Subject.service(), bindings(snapshot=True, live=True))
    )
    await auntil(lambda: kept.notices == ["snapshot 2"])
    await db(Note.objects.all().delete)
    await db(lambda: WalEntry.objects.filter(seq=None).order_by("-id")[:1].get().delete())
    await db(lambda: WalEntry.objects.filter(seq=None).update(op="TRUNCATE", old=None, new=None))
    await server.feed()
    await auntil(lambda: kept.notices == ["snapshot 2", "snapshot 0"])
    await auntil(lambda: plain.notices == ["resync"])
    missed = await server.resumed(server.log.seq - 1)
    assert missed.notices == ["resync"]


# --- over a socket ------------------------------------------------------------------------------


@contextmanager
def held_replays() -> Iterator[asyncio.Event]:
    """Replays read from the table, and wait for the event before they do."""
    release = asyncio.Event()
    log = hub().dispatcher.log
    log.start(Head(log.epoch, log.seq, log.commit_us))
    reader = hub().dispatcher.reader
    read = reader.deep

    async def held(after: int, upto: int) -> Any:
        await release.wait()
        return await read(after, upto)

    reader.deep = held
    yield release


async def test_a_heartbeat_names_no_place_until_the_socket_has_been_served_up_to_it(
    granted: Any,
) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    start = await client.listen()
    await db(Note.objects.create, title="a")
    await client.change()
    with held_replays() as release:
        await client.listen(topic="realtime:other", since=start["seq"])
        ref = await client.push("phoenix", "heartbeat", {})
        assert (await client.reply(ref))["response"] == {}
        release.set()
        told = await client.until(lambda f: f[3] == "system" and f[4]["message"] == "caught up")
    ref = await client.push("phoenix", "heartbeat", {})
    assert (await client.reply(ref))["response"]["seq"] >= told[4]["seq"] > start["seq"]
    await client.close()


async def test_a_permission_lost_during_a_replay_holds_for_what_is_left_of_it(
    granted: Any,
) -> None:
    policy = await db(granted, "view_note")
    client = await Client().connect()
    start = await client.listen()
    for title in "ab":
        await db(Note.objects.create, title=title)
    await client.change()
    await client.change()
    with held_replays() as release:
        await client.listen(topic="realtime:other", since=start["seq"])
        await db(Policy.objects.filter(pk=policy.pk).update, using={"title": "b"})
        await client.until(lambda f: f[2] == "realtime:other" and f[3] == "system")
        release.set()
        frame = await client.until(
            lambda f: f[2] == "realtime:other" and f[3] == "postgres_changes"
        )
        assert frame[4]["data"]["record"]["title"] == "b"
        await client.until(lambda f: f[3] == "system" and f[4]["message"] == "caught up")
    await client.close()


async def test_bindings_replay_merged_in_one_order_each_change_once_with_all_its_ids(
    granted: Any,
) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    for number in range(6):
        await db(Note.objects.create, title=str(number), score=number)
    seqs = [(await client.change())["seq"] for _ in range(6)]
    await client.close()
    again = await Client().connect()
    table = {"schema": "public", "table": "zoo_note"}
    reply = await again.join(
        postgres_changes=[
            {**table, "event": "*", "since": seqs[0]},
            {**table, "event": "INSERT", "since": seqs[2]},
            {**table, "event": "*", "filter": "score=gt.4", "since": seqs[0]},
            {**table, "event": "*", "select": ["title"], "since": seqs[4]},
        ]
    )
    one, two, three, four = (item["id"] for item in reply["response"]["postgres_changes"])
    seen = []
    for _ in range(6):
        frame = await again.until(lambda f: f[3] == "postgres_changes")
        seen.append((frame[4]["data"]["seq"], set(frame[4]["ids"])))
    assert seen[:4] == [
        (seqs[1], {one}),
        (seqs[2], {one}),
        (seqs[3], {one, two}),
        (seqs[4], {one, two}),
    ]
    assert [seq for seq, _ in seen[4:]] == [seqs[5]] * 2
    assert {frozenset(ids) for _, ids in seen[4:]} == {
        frozenset((one, two, three)),
        frozenset((four,)),
    }
    await again.close()


async def test_many_channels_of_one_socket_that_come_back_at_once_do_not_overflow_it() -> None:
    server = Server()
    await server.start()
    begin = server.log.seq
    await db(Note.objects.bulk_create, [Note(title="x" * 200) for _ in range(200)])
    await server.feed()
    taken: list[str | bytes] = []

    async def send(frame: str | bytes) -> None:
        await asyncio.sleep(0)
        taken.append(frame)

    outbox = AsgiOutbox(send, 500_000, lambda error: None)
    subscribers = [FakeSubscriber(str(number)) for number in range(100)]
    for subscriber in subscribers:
        subscriber.outlet = outbox
        subscriber.takes_more = outbox.takes_more  # type: ignore[method-assign]
        subscriber.writable = outbox.writable  # type: ignore[method-assign]
    asked = Request(Subject.service(), bindings(since=begin))
    await asyncio.gather(*(server.subscriptions.add(each, asked) for each in subscribers))
    await auntil(lambda: outbox.overflowed or not any(map(server.channels.replaying, subscribers)))
    await auntil(lambda: outbox.overflowed or not outbox.size)
    assert not outbox.overflowed
    assert len(taken) == 100 * 200
