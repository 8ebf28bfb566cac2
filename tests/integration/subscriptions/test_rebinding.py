"""While many are bound anew others have their turn, and everybody ends up where he belongs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.db.utils import OperationalError

from auth_rls import Subject
from auth_rls.access import authority
from auth_rls.models import Policy
from realtime.event_log import sequencer
from realtime.event_log.event import DatabaseEvent
from realtime.models import WalEntry
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.planner import Planner
from realtime.subscriptions.rebinding import Rhythm
from realtime.subscriptions.request import Request
from realtime.util.time_slice import TimeSlice
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings, counting
from tests.support.waiting import auntil
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("wal")]

MINE = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
MANY = 60


# Other tasks run after every step, and few channels are planned at a time.
HASTY = Rhythm(slice_seconds=0.0, planned_together=7)


async def started() -> Server:
    server = Server(rhythm=HASTY)
    await server.start()
    await server.feed()
    return server


async def listening(
    server: Server, subjects: list[Subject], **binding: Any
) -> list[FakeSubscriber]:
    subscribers = [FakeSubscriber(str(number)) for number in range(len(subjects))]
    for subscriber, subject in zip(subscribers, subjects, strict=True):
        await server.subscriptions.add(subscriber, Request(subject, bindings(**binding)))
    return subscribers


async def fed(server: Server, meanwhile: Callable[[], bool]) -> asyncio.Task[None]:
    """Hand out what is committed, up to where that becomes true."""
    feeding = asyncio.create_task(server.feed())
    while not meanwhile():
        assert not feeding.done(), "nobody had his turn in between"
        await asyncio.sleep(0)
    return feeding


async def events_of(server: Server) -> list[DatabaseEvent]:
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    return list(await server.reader.from_table(server.log.seq, head.seq))


async def test_who_leaves_or_joins_while_a_policy_is_followed_gets_what_it_says_now(
    granted: Any,
) -> None:
    await db(granted, "view_note", using={"title": "old"})
    server = await started()
    subscribers = await listening(server, [Subject.anonymous()] * MANY)
    await db(Policy.objects.update, using={"title": "new"})
    for title in ("old", "new"):
        await db(Note.objects.create, title=title)
    feeding = await fed(server, lambda: subscribers[0].notices == ["resubscribed"])
    told = [subscriber for subscriber in subscribers if subscriber.notices]
    assert 0 < len(told) < MANY
    # One that was told, one that was not, and one more.
    for gone in (told[0], subscribers[-1]):
        server.channels.remove(gone)
    (late,) = await listening(server, [Subject.anonymous()])
    await feeding
    assert [subscriber.notices for subscriber in subscribers] == [["resubscribed"]] * (MANY - 1) + [
        []
    ]
    # By the old policy one note, and by the new one the other.
    assert {len(subscriber.frames) for subscriber in subscribers[1:-1]} == {1}
    assert not told[0].frames and not subscribers[-1].frames
    late.frames.clear()
    for title in ("old", "new"):
        await db(Note.objects.create, title=title)
    await server.feed()
    assert {len(subscriber.frames) for subscriber in subscribers[1:-1]} == {2}
    assert len(late.frames) == 1


async def test_who_asks_as_somebody_else_meanwhile_stays_that_one(granted: Any) -> None:
    await db(granted, "view_note", using={"owner": "$user.id"}, audience="authenticated")
    ada, bob = await db(lambda: [User.objects.create_user(name) for name in ("ada", "bob")])
    server = await started()
    subscribers = await listening(server, [Subject.from_user(ada)] * MANY)
    await db(Policy.objects.update, using={"owner": "$user.id", "title": "a"})
    feeding = await fed(server, lambda: bool(subscribers[0].notices))
    assert not subscribers[-1].notices
    await server.subscriptions.add(subscribers[-1], Request(Subject.from_user(bob), bindings()))
    await feeding
    await db(Note.objects.create, owner=ada, title="a")
    await server.feed()
    assert [len(subscriber.frames) for subscriber in subscribers] == [1] * (MANY - 1) + [0]
    await db(Note.objects.create, owner=bob, title="a")
    await db(Note.objects.create, owner=bob, title="b")
    await server.feed()
    assert [len(subscriber.frames) for subscriber in subscribers] == [1] * MANY


async def test_a_database_that_fails_half_way_holds_up_everybody_and_loses_nobody(
    granted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db(granted, "view_note", using={"title": "old"})
    server = await started()
    subscribers = await listening(server, [Subject.anonymous()] * MANY)
    await db(Policy.objects.update, using={"title": "new"})
    await db(Note.objects.create, title="new")
    renew = Planner.renew
    calls: list[int] = []

    def failing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) in (3, 4):
            raise OperationalError("gone")
        return renew(*args)

    monkeypatch.setattr(Planner, "renew", failing)
    await server.feed()
    assert [subscriber.notices for subscriber in subscribers] == [["resubscribed"]] * MANY
    assert [len(subscriber.frames) for subscriber in subscribers] == [1] * MANY


async def shared_team(granted: Any) -> tuple[Any, Any, list[Subject]]:
    def make() -> tuple[Any, Any, list[Subject]]:
        granted("view_note", using={"team__in": MINE}, audience="authenticated")
        user, team = User.objects.create_user("ada"), Team.objects.create(name="team")
        Note.objects.create(title="a", team=team)
        return user, team, [Subject.from_user(user)] * MANY

    return await db(make)


async def test_a_user_who_cannot_be_read_loses_the_channel_and_holds_up_nobody(
    granted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user model is the project's own, and may raise anything."""
    await db(granted, "view_note", using={"title": "old"}, audience="authenticated")
    users = await db(lambda: [User.objects.create_user(name) for name in ("ada", "bob", "cid")])
    server = await started()
    hers, *others = await listening(server, [Subject.from_user(user) for user in users])
    renew = Planner.renew

    def fails_for_one(self: Planner, subjects: Iterable[Subject]) -> Any:
        subjects = list(subjects)
        if users[0].pk in {subject.user_id for subject in subjects}:
            raise RuntimeError("her profile cannot be read")
        return renew(self, subjects)

    monkeypatch.setattr(Planner, "renew", fails_for_one)
    await db(Policy.objects.update, using={"title": "new"})
    await db(Note.objects.create, title="new")
    await server.feed()
    assert (hers.notices, hers.frames) == (["revoked"], [])
    assert [(one.notices, one.frames) for one in others] == [(["resubscribed"], ["live"])] * 2


async def test_an_error_of_any_kind_while_permissions_are_read_is_waited_out(
    granted: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await db(granted, "view_note", using={"title": "old"})
    server = await started()
    (subscriber,) = await listening(server, [Subject.anonymous()])
    looks: list[object] = []
    look = AccessWatch.look

    def fails_once(self: AccessWatch) -> Planner:
        looks.append(self)
        if len(looks) == 1:
            raise RuntimeError("anything")
        return look(self)

    monkeypatch.setattr(AccessWatch, "look", fails_once)
    await db(Policy.objects.update, using={"title": "new"})
    for title in ("old", "new"):
        await db(Note.objects.create, title=title)
    await server.feed()
    assert subscriber.frames == ["live"]
    assert "anything" in caplog.text


async def test_who_asks_anew_while_a_set_that_many_hang_on_is_told_hears_of_a_row_once(
    granted: Any,
) -> None:
    user, team, subjects = await shared_team(granted)
    server = await started()
    subscribers = await listening(server, subjects, live=True)
    filtered = bindings(live=True, filter="title=neq.b")
    model = FakeSubscriber()
    await server.subscriptions.add(model, Request(subjects[0], filtered))
    narrower = server.channels.plan_of(model)
    server.channels.remove(model)
    await db(Member.objects.create, user=user, team=team)
    feeding = await fed(server, lambda: bool(subscribers[0].notices))
    again, other, gone = subscribers[-3:]
    assert not any(subscriber.notices for subscriber in (again, other, gone))
    # Without awaiting: one asks the same once more, one for another live set, which so begins
    # anew, and one leaves.
    enter, plan_of = server.channels.enter, server.channels.plan_of
    enter(again, Request(subjects[0], bindings(live=True)), plan_of(again))
    enter(other, Request(subjects[0], filtered), narrower)
    server.channels.remove(gone)
    await feeding
    await auntil(lambda: not any(map(server.channels.replaying, subscribers)))
    assert [len(subscriber.frames) for subscriber in subscribers] == [1] * (MANY - 2) + [0, 0]
    assert gone.notices == []
    # It was told to read its rows, so none is told besides.
    assert other.notices == ["resync", "resubscribed"]


@pytest.mark.slow
async def test_a_way_that_ends_while_others_are_told_is_not_gone_twice(
    granted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, team, subjects = await shared_team(granted)
    server = await started()
    subscribers = await listening(server, subjects, live=True)
    late = FakeSubscriber("late")
    await db(Member.objects.create, user=user, team=team)
    (event,) = await events_of(server)
    # On its way when the set moves, it sees for itself, and arrives before its turn to be told.
    asked = bindings(live=True, snapshot=True)
    await server.subscriptions.add(late, Request(subjects[0], asked))
    assert server.channels.replaying(late)

    async def pause(self: TimeSlice) -> None:
        assert not late.notices or not server.channels.replaying(late)
        await auntil(lambda: not server.channels.replaying(late))

    monkeypatch.setattr(TimeSlice, "pause", pause)
    await server.hand_out(event)
    await auntil(lambda: not any(map(server.channels.replaying, [*subscribers, late])))
    assert [len(subscriber.frames) for subscriber in [*subscribers, late]] == [1] * (MANY + 1)


async def test_sets_that_changed_unheard_are_brought_to_all_who_still_listen(
    granted: Any,
) -> None:
    def make() -> tuple[list[Any], Any]:
        granted("view_note", using={"team__in": MINE}, audience="authenticated")
        users = [User.objects.create_user(f"user {number}") for number in range(MANY)]
        return users, Team.objects.create(name="team")

    users, team = await db(make)
    server = await started()
    subscribers = await listening(server, [Subject.from_user(user) for user in users])

    def unheard() -> None:
        Member.objects.bulk_create([Member(user=user, team=team) for user in users])
        WalEntry.objects.filter(seq=None).delete()

    await db(unheard)
    restarting = asyncio.create_task(server.rebinding.restart(server.log.position))
    sets = server.subscriptions.sets
    while not any(map(len, map(sets.members, sets.retained(subscribers[0])))):
        assert not restarting.done(), "nobody had his turn in between"
        await asyncio.sleep(0)
    assert not subscribers[-1].notices
    server.channels.remove(subscribers[-1])
    await restarting
    assert [subscriber.notices for subscriber in subscribers] == [["resubscribed"]] * (MANY - 1) + [
        []
    ]
    await db(Note.objects.create, title="a", team=team)
    await server.feed()
    assert [len(subscriber.frames) for subscriber in subscribers] == [1] * (MANY - 1) + [0]
    for subscriber in subscribers:
        server.channels.remove(subscriber)
    assert len(sets) == 0


async def test_who_leaves_while_an_emptied_table_is_told_hears_nothing_of_it(granted: Any) -> None:
    await db(granted, "view_note")
    await db(Note.objects.create, title="a")
    server = await started()
    subscribers = await listening(server, [Subject.anonymous()] * 3)
    await db(Note.objects.all().delete)
    # As PostgreSQL has it: one entry that names no rows.
    await db(lambda: WalEntry.objects.filter(seq=None).update(op="TRUNCATE", old=None, new=None))
    (event,) = await events_of(server)
    server.log.append(event)
    with server.channels.frozen():
        steps = server.channels.matching(event, [])
        next(steps)
        told = [subscriber for subscriber in subscribers if subscriber.notices]
        rest = [subscriber for subscriber in subscribers if not subscriber.notices]
        assert (len(told), len(rest)) == (1, 2)
        server.channels.remove(rest[0])
        assert list(steps) == [None, None]
    assert [subscriber.notices for subscriber in (*told, *rest)] == [["resync"], [], ["resync"]]


def memberships(statements: list[str]) -> int:
    return sum('FROM "zoo_member"' in statement for statement in statements)


async def test_after_an_edit_that_keeps_its_select_the_sets_are_not_read_again(
    granted: Any,
) -> None:
    user, team, subjects = await shared_team(granted)
    server = await started()
    (subscriber,) = await listening(server, subjects[:1])
    await db(Policy.objects.update, using={"team__in": MINE, "title": "a"})
    with counting() as statements:
        await server.feed()
    assert (memberships(statements), subscriber.notices) == (0, ["resubscribed"])
    await db(Member.objects.create, user=user, team=team)
    for title in "ab":
        await db(Note.objects.create, title=title, team=team)
    await server.feed()
    assert len(subscriber.frames) == 1


@pytest.mark.parametrize("gone", [{"using": {"title": "a"}}, {"enabled": False}, {"using": 7}])
async def test_what_went_by_while_a_policy_did_not_read_a_table_is_in_the_sets_when_it_does(
    granted: Any, gone: dict[str, Any]
) -> None:
    user, team, subjects = await shared_team(granted)
    server = await started()
    (subscriber,) = await listening(server, subjects[:1])

    def edits() -> None:
        policy = Policy.objects.get()
        was = {name: getattr(policy, name) for name in gone}
        for values in (gone, was):
            for name, value in values.items():
                setattr(policy, name, value)
            # As a fixture stores it: also what cannot be used.
            policy.save_base(raw=True)
            if values is gone:
                # Nobody's policy asks for them any more.
                Member.objects.create(user=user, team=team)
        assert not WalEntry.objects.filter(seq=None, table_name="zoo_member").exists()

    await db(edits)
    await server.feed()
    await db(Note.objects.create, title="a", team=team)
    await server.feed()
    assert len(subscriber.frames) == 1


async def test_a_policy_reads_on_when_it_reads_as_much_as_before_and_is_understood(
    granted: Any,
) -> None:
    def check() -> None:
        policy = granted("view_note", using={"team__in": MINE})
        was = {field.column: field.value_from_object(policy) for field in Policy._meta.fields}
        more = {"all": [{"team__in": MINE}, {"title": "a"}]}
        wider = {**MINE, "where": {"user": "$user.id", "role": "admin"}}
        for change, reads_on in (
            ({}, True),
            ({"audience": "authenticated", "mode": "restrictive"}, True),
            ({"using": more}, True),
            ({"using": {"team__in": wider}}, True),
            ({"using": {"title": "a"}}, False),
            ({"using": {"nothing": 1, "team__in": MINE}}, False),
            ({"enabled": False}, False),
            ({"mode": "gentle"}, False),
            ({"with_check": {"title": "a"}}, False),
            ({"permission_id": 0}, False),
        ):
            assert authority.reads_on(was, was | change) is reads_on, change
        assert not authority.reads_on(was | {"using": {"team__in": wider}}, was)
        assert not authority.reads_on(was, None)
        # What read nothing has nothing to lose; what is not known, perhaps.
        assert authority.reads_on(was | {"enabled": False}, None)
        assert authority.reads_on(was | {"using": {"title": "a"}}, None)
        assert not authority.reads_on(was | {"permission_id": 0}, was)

    await db(check)


async def test_a_channel_that_takes_another_subject_while_a_change_is_matched_gets_the_change(
    granted: Any,
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    server = await started()
    subscriber = FakeSubscriber()
    both = (*bindings(live=True, filter="title=eq.b"), *bindings())
    await server.subscriptions.add(subscriber, Request(Subject.service(), both))
    await db(Note.objects.create, title="a", is_public=True)
    await db(lambda: sequencer.number(connections["default"], 10_000))
    (event,) = await server.reader.from_table(server.log.seq, (await server.reader.head()).seq)
    server.log.append(event)
    with server.channels.frozen():
        # A token takes effect while other tasks run in the middle of a long match.
        await server.subscriptions.add(subscriber, Request(Subject.anonymous(), both))
        server.deliver(event)
    await auntil(lambda: not server.channels.replaying(subscriber))
    assert subscriber.frames == ["live"]
    # The rows of the live binding are read anew.
    assert "resync" in subscriber.notices
    await db(Note.objects.create, title="hidden")
    await server.feed()
    assert subscriber.frames == ["live"]


async def test_a_live_set_that_was_just_read_begins_anew_for_another_subject_of_the_channel(
    granted: Any,
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    await db(Note.objects.create, title="hidden")
    server = await started()
    subscriber = FakeSubscriber()
    asked = bindings(live=True, snapshot=True)
    with server.channels.frozen():
        await server.subscriptions.add(subscriber, Request(Subject.service(), asked))
        await auntil(lambda: not server.channels.replaying(subscriber))
        # The snapshot has ended, and the channel waits for the end of the event that is matched.
        await server.subscriptions.add(subscriber, Request(Subject.anonymous(), asked))
    await auntil(lambda: not server.channels.replaying(subscriber))
    assert subscriber.notices == ["snapshot 1", "snapshot 0"]
