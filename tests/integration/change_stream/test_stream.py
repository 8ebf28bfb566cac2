"""`realtime.changes` in a process that is no server."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import override_settings

import realtime
from auth_rls import Subject, disconnect
from auth_rls.models import Policy
from realtime.change_stream.stream import ChangeStream
from realtime.event_log import sequencer
from realtime.event_log.table import backlog
from realtime.process.pruning import prune
from realtime.wal.head import begin_epoch
from tests.support.live_sets import MINE
from tests.support.socket_client import db
from tests.support.waiting import auntil
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal", "closing_hub")]

PATIENCE = 30.0


async def take(stream: ChangeStream, count: int) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        return [await anext(stream) for _ in range(count)]


def told(changes: list[Any]) -> list[tuple[str, str | None]]:
    rows = ((c.type, c.new if c.new is not None else c.old) for c in changes)
    return [(type_, (row or {}).get("title")) for type_, row in rows]


async def write(*titles: str, **fields: Any) -> list[Note]:
    return [await db(Note.objects.create, title=title, **fields) for title in titles]


def left_running() -> set[str]:
    tasks = {task.get_name() for task in asyncio.all_tasks()}
    threads = {thread.name for thread in threading.enumerate()}
    return {
        name
        for name in tasks | threads
        if name.startswith("rowcast") and not name.startswith("rowcast-db")
    }


async def test_changes_come_in_order_each_once_with_their_rows() -> None:
    async with realtime.changes(Note) as stream:
        (note,) = await write("a")
        await write("b")
        note.title = "c"
        await db(note.save)
        await db(note.delete)
        found = await take(stream, 4)
    assert told(found) == [("INSERT", "a"), ("INSERT", "b"), ("UPDATE", "c"), ("DELETE", "c")]
    assert [c.seq for c in found] == list(range(found[0].seq, found[0].seq + 4))
    assert found[2].old["title"] == "a" and found[2].changed == ("title",)
    assert {c.model for c in found} == {Note} and found[0].pk == found[3].pk
    assert not any(c.snapshot for c in found)


async def test_what_was_committed_before_the_beginning_does_not_come() -> None:
    await write("before")
    async with realtime.changes(Note) as stream:
        await write("after")
        assert told(await take(stream, 1)) == [("INSERT", "after")]


async def test_events_and_filters_choose() -> None:
    queryset = Note.objects.filter(score__gte=10).exclude(title="no").only("title")
    async with (
        realtime.changes(queryset, filter="is_public=eq.true") as some,
        realtime.changes(Note, events=("UPDATE", "DELETE")) as later,
    ):
        await write("low", score=1, is_public=True)
        await write("private", score=10)
        await write("no", score=10, is_public=True)
        (note,) = await write("yes", score=10, is_public=True)
        note.body = "more"
        await db(note.save)
        await db(note.delete)
        found = await take(some, 3)
        assert [c.type for c in found] == ["INSERT", "UPDATE", "DELETE"]
        assert found[0].columns == ("id", "title") and set(found[0].new) == {"id", "title"}
        assert told(await take(later, 2)) == [("UPDATE", "yes"), ("DELETE", "yes")]


@pytest.fixture
async def three() -> list[Any]:
    """Three changes that were delivered once."""
    async with realtime.changes(Note) as stream:
        await write("one", "two", "three")
        return await take(stream, 3)


@pytest.mark.parametrize("form", ["seq", "text", "position", "timestamp", "moment"])
async def test_since_brings_what_came_after(form: str, three: list[Any]) -> None:
    first = three[0]
    async with realtime.changes(Note) as stream:
        assert stream.position is not None
        epoch = stream.position.partition(":")[0]
    since = {
        "seq": first.seq,
        "text": str(first.seq),
        "position": f"{epoch}:{first.seq}",
        "timestamp": first.commit_timestamp,
        "moment": datetime.fromisoformat(first.commit_timestamp),
    }[form]
    async with realtime.changes(Note, since=since) as stream:
        assert told(await take(stream, 2)) == [("INSERT", "two"), ("INSERT", "three")]
        await write("four")
        assert told(await take(stream, 1)) == [("INSERT", "four")]
        assert stream.position == f"{epoch}:{first.seq + 3}"


async def test_a_position_goes_on_without_gap_or_repetition() -> None:
    async with realtime.changes(Note) as stream:
        await write("one", "two")
        await take(stream, 1)
        position = stream.position
    await write("three")
    async with realtime.changes(Note, since=position) as stream:
        assert told(await take(stream, 2)) == [("INSERT", "two"), ("INSERT", "three")]


async def test_a_snapshot_comes_first_and_nothing_is_lost_or_doubled_behind_it() -> None:
    await write(*map(str, range(20)))
    stream = realtime.changes(Note, snapshot=True)
    writing = asyncio.create_task(write(*map(str, range(20, 60))))
    try:
        found = await take(stream, 60)
        await writing
        assert {c.new["title"] for c in found} == set(map(str, range(60)))
        assert {c.type for c in found} == {"INSERT"}
        assert sum(c.snapshot for c in found) >= 20
        live = [c.seq for c in found if not c.snapshot]
        assert live == sorted(live)
        await write("last")
        assert told(await take(stream, 1)) == [("INSERT", "last")]
    finally:
        await stream.aclose()


async def test_a_subject_gets_the_rows_of_its_policies(granted: Any) -> None:
    def people() -> tuple[User, User]:
        granted("view_note", using={"owner": "$user.id"})
        return User.objects.create_user("ada"), User.objects.create_user("bob")

    ada, bob = await db(people)
    async with (
        realtime.changes(Note, subject=ada) as of_ada,
        realtime.changes(Note, subject=Subject.from_user(bob)) as of_bob,
        realtime.changes(Note) as of_all,
    ):
        await write("hers", owner=ada)
        await write("his", owner=bob)
        await write("hers too", owner=ada)
        assert told(await take(of_ada, 2)) == [("INSERT", "hers"), ("INSERT", "hers too")]
        assert told(await take(of_bob, 1)) == [("INSERT", "his")]
        assert len(await take(of_all, 3)) == 3


async def test_the_actor_is_shown_to_the_service_role_and_to_the_writer(granted: Any) -> None:
    def people() -> tuple[User, User]:
        granted("view_note")
        return User.objects.create_user("ada"), User.objects.create_user("bob")

    ada, bob = await db(people)

    def write_as_ada() -> None:
        with realtime.actor(ada):
            Note.objects.create(title="a")

    async with (
        realtime.changes(Note, subject=ada) as of_ada,
        realtime.changes(Note, subject=bob) as of_bob,
        realtime.changes(Note) as of_all,
    ):
        await db(write_as_ada)
        (hers,), (his,), (service,) = [await take(s, 1) for s in (of_ada, of_bob, of_all)]
    assert (hers.actor, his.actor, service.actor) == (str(ada.pk), None, str(ada.pk))


async def test_a_membership_that_ends_takes_effect_at_its_place_in_the_log(granted: Any) -> None:
    def begin() -> tuple[User, Team, Member]:
        granted("view_note", using={"team__in": MINE})
        ada = User.objects.create_user("ada")
        team = Team.objects.create(name="team")
        return ada, team, Member.objects.create(user=ada, team=team)

    ada, team, member = await db(begin)
    async with realtime.changes(Note, subject=ada, live=True) as stream:
        await write("seen", team=team)
        await db(member.delete)
        assert told(await take(stream, 2)) == [("INSERT", "seen"), ("DELETE", None)]
        await write("unseen", team=team)
        await db(Member.objects.create, user=ada, team=team)
        assert sorted(told(await take(stream, 2))) == [("INSERT", "seen"), ("INSERT", "unseen")]


async def test_a_policy_that_goes_ends_it(granted: Any) -> None:
    policy: Policy = await db(granted, "view_note")
    ada = await db(User.objects.create_user, "ada")
    async with realtime.changes(Note, subject=ada) as stream:
        await write("a")
        await take(stream, 1)
        await db(policy.delete)
        with pytest.raises(realtime.AccessRevoked, match="no policy"):
            await take(stream, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("how", ["deactivated", "disconnected", "deleted"])
async def test_a_user_who_may_ask_no_more_ends_it(how: str, granted: Any) -> None:
    await db(granted, "view_note")
    ada = await db(User.objects.create_user, "ada")
    async with realtime.changes(Note, subject=ada) as stream:
        if how == "disconnected":
            await db(disconnect, ada)
        elif how == "deleted":
            await db(ada.delete)
        else:
            ada.is_active = False
            await db(ada.save)
        with pytest.raises(realtime.AccessRevoked):
            await take(stream, 1)
    if how == "deactivated":
        with pytest.raises(realtime.AccessRevoked):
            realtime.changes(Note, subject=ada)


async def test_a_token_that_expires_ends_it(granted: Any) -> None:
    await db(granted, "view_note")
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    subject = Subject("authenticated", {"role": "authenticated"}, expires_at=soon.timestamp())
    async with realtime.changes(Note, subject=subject) as stream:
        with pytest.raises(realtime.AccessRevoked, match="expired"):
            await take(stream, 1)


async def test_a_truncate_asks_for_a_resync_and_names_the_head() -> None:
    async with realtime.changes(Note) as stream:
        await write("a")
        await take(stream, 1)

        def truncate() -> None:
            with connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    cursor.execute("TRUNCATE zoo_note CASCADE")
                else:
                    begin_epoch(connection)

        await db(truncate)
        with pytest.raises(realtime.ResyncRequired) as lost:
            await take(stream, 1)
    await write("b")
    async with realtime.changes(Note, since=lost.value.head) as stream:
        assert told(await take(stream, 1)) == [("INSERT", "b")]


async def test_a_pruned_history_asks_for_a_resync(three: list[Any]) -> None:
    await db(prune, timedelta(0))
    stream = realtime.changes(Note, since=three[0].seq)
    with pytest.raises(realtime.ResyncRequired, match="resync required: changes of zoo_note"):
        await take(stream, 1)
    await stream.aclose()


async def test_a_position_of_another_epoch_asks_for_a_resync(three: list[Any]) -> None:
    stream = realtime.changes(Note, since=f"another:{three[0].seq}")
    with pytest.raises(realtime.ResyncRequired):
        await take(stream, 1)
    await stream.aclose()


def insert_many(count: int, first: int = 0) -> None:
    Note.objects.bulk_create(Note(title=str(number)) for number in range(first, first + count))


async def test_a_slow_consumer_gets_everything_and_little_waits_in_memory() -> None:
    async with realtime.changes(Note) as stream, realtime.changes(Note) as quick:
        await db(insert_many, 2_000)
        await db(insert_many, 2_000, 2_000)
        assert len(await take(quick, 4_000)) == 4_000
        # The other one took nothing meanwhile, and was left behind.
        assert stream.waiting <= 1_500
        found = await take(stream, 4_000)
        assert [c.new["title"] for c in found] == list(map(str, range(4_000)))
        await write("last")
        assert told(await take(stream, 1)) == [("INSERT", "last")]


async def test_a_slow_consumer_of_a_snapshot_gets_all_its_rows() -> None:
    await db(insert_many, 3_000)
    async with realtime.changes(Note, snapshot=True) as stream:
        await take(stream, 1)
        await write("behind")
        assert stream.waiting <= 1_500
        found = await take(stream, 3_000)
        assert found[-1].new["title"] == "behind" and not found[-1].snapshot
        assert all(c.snapshot for c in found[:-1])


async def test_a_slow_consumer_does_not_keep_the_log_from_being_pruned() -> None:
    with override_settings(REALTIME={"RING_SIZE": 10}):
        async with realtime.changes(Note) as stream:
            await db(insert_many, 4_000)
            await take(stream, 1)
            await auntil(lambda: stream.waiting >= 900, "it is full")
            await db(lambda: sequencer.number(connection, 10_000))
            await db(prune, timedelta(0))
            taken = 1
            with pytest.raises(realtime.ResyncRequired):
                async with asyncio.timeout(PATIENCE):
                    async for change in stream:
                        # What comes up to there is without a gap.
                        assert change.new["title"] == str(taken)
                        taken += 1
            assert taken < 4_000


@pytest.fixture
def terminated() -> Iterator[list[int]]:
    """The signals that the program's own handler got."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread")
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)


async def test_a_server_that_is_told_to_stop_ends_the_iteration(terminated: list[int]) -> None:
    async with realtime.changes(Note) as stream:
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await anext(stream, None) is None
        await auntil(lambda: terminated, "the server's own handler is called")


async def test_iterators_of_one_loop_share_a_follower_which_ends_with_the_last() -> None:
    before = left_running()
    one, two = realtime.changes(Note), realtime.changes(Note)
    async with one:
        running = left_running()
        async with two:
            assert left_running() == running
            await write("a")
            assert told(await take(one, 1)) == told(await take(two, 1)) == [("INSERT", "a")]
        assert left_running() == running
    await auntil(lambda: left_running() <= before, "nothing is left running")


async def test_breaking_out_leaves_nothing_running() -> None:
    before = left_running()
    await write("a")
    async for change in realtime.changes(Note, snapshot=True):
        assert change.new["title"] == "a"
        break
    await auntil(lambda: left_running() <= before, "nothing is left running")


async def test_a_consumer_that_is_cancelled_leaves_nothing_running() -> None:
    before = left_running()

    async def consume() -> None:
        async for _ in realtime.changes(Note):
            raise AssertionError("nothing was written")

    task = asyncio.create_task(consume())
    await auntil(lambda: "rowcast-follower" in left_running(), "it follows")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    del task
    await auntil(lambda: left_running() <= before, "nothing is left running")


async def test_a_wait_that_is_given_up_loses_nothing() -> None:
    stream = realtime.changes(Note)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.05)
    async with stream:
        await write("a")
        assert told(await take(stream, 1)) == [("INSERT", "a")]


async def test_closing_ends_a_wait_for_the_next_change() -> None:
    async with realtime.changes(Note) as stream:
        waiting = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        await stream.aclose()
        assert await waiting is None


async def test_what_nobody_numbers_is_numbered_here() -> None:
    async with realtime.changes(Note) as stream:
        await write("a")
        await take(stream, 1)
        assert await db(lambda: backlog(connection)) == 0


async def test_what_somebody_else_numbers_comes_too() -> None:
    async with realtime.changes(Note) as stream:
        await write("a")
        await db(lambda: sequencer.number(connection))
        assert told(await take(stream, 1)) == [("INSERT", "a")]
