"""Sets behind selects: moved by the log, shared and dropped, or read again as a whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections

from auth_rls.models import Policy
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE, Not, Select, Test
from auth_rls.sets.live_set import SetDelta
from realtime.event_log import sequencer
from realtime.event_log.position import Position
from realtime.models import WalEntry
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.request import Request
from tests.support.live_sets import (
    MINE,
    ROOMS,
    listening,
    named,
    of_user,
    policies,
    started,
)
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, bindings, counting
from tests.support.waiting import auntil
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("wal")]


async def test_a_membership_change_costs_no_query_and_concerns_its_own_user_alone(
    people: list[Any],
) -> None:
    team, ada, bob = people
    server = await started()
    hers, his = [await listening(server, subject) for subject in (ada, bob)]
    member = await db(Member.objects.create, user=ada.user, team=team)
    await db(Note.objects.create, title="a", team=team)
    await db(member.delete)
    await db(Note.objects.create, title="b", team=team)
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    events = await server.reader.from_table(server.log.seq, head.seq)
    with counting() as statements:
        for event in events:
            await server.hand_out(event)
    assert statements == []
    assert (hers.frames, his.frames) == (["live"], [])
    assert (hers.notices, his.notices) == (["resubscribed"] * 2, [])


async def test_subjects_with_the_same_values_share_a_set_which_goes_with_the_last_of_them(
    people: list[Any],
) -> None:
    _, ada, bob = people
    server = await started()
    sets = server.subscriptions.sets
    with counting() as statements:
        subscribers = await asyncio.gather(*(listening(server, ada) for _ in range(20)))
    assert sum('FROM "zoo_member"' in statement for statement in statements) == 1
    other = await listening(server, bob)
    assert len(sets) == 2
    server.channels.remove(other)
    for subscriber in subscribers[1:]:
        server.channels.remove(subscriber)
    assert len(sets) == 1
    server.channels.remove(subscribers[0])
    assert len(sets) == 0


@pytest.mark.slow
async def test_many_live_sets_move_at_once_each_to_what_its_subject_may_see(
    people: list[Any],
) -> None:
    team, ada, bob = people
    other = await db(Team.objects.create, name="other")
    await db(Note.objects.create, title="a", team=team)
    await db(Note.objects.create, title="b", team=other)
    server = await started()
    subscribers = [await listening(server, ada, live=True) for _ in range(30)]
    his = await listening(server, bob, live=True)
    await db(
        lambda: Member.objects.bulk_create(
            [Member(user=ada.user, team=team), Member(user=bob.user, team=other)]
        )
    )
    await server.feed()
    await auntil(lambda: not any(map(server.channels.replaying, [*subscribers, his])))
    assert all(
        len(subscriber.frames) == 1 and '"a"' in str(subscriber.frames)
        for subscriber in subscribers
    )
    assert len(his.frames) == 1 and '"b"' in str(his.frames)
    await db(lambda: Member.objects.all().delete())
    await server.feed()
    await auntil(lambda: not any(map(server.channels.replaying, [*subscribers, his])))
    assert all(
        len(subscriber.frames) == 2 and "DELETE" in str(subscriber.frames[1])
        for subscriber in [*subscribers, his]
    )


async def test_an_emptied_table_empties_the_sets_that_it_fills_and_those_behind(
    people: list[Any],
) -> None:
    team, ada, _ = people
    await db(policies, {"title__in": ROOMS})
    await db(Member.objects.create, user=ada.user, team=team)
    await db(Member.objects.create, user=ada.user, team=team)
    server = await started()
    sets = LiveSetStore("default", server.log, AccessWatch("default"))
    wanted = [of_user(ada.user_id), named(ada.user_id)]
    await sets.acquire("test", wanted)
    assert list(sets.values(wanted).values()) == [{team.pk}, {"room:team"}]

    def empty() -> None:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("TRUNCATE zoo_member")
            return
        Member.objects.all().delete()
        # As PostgreSQL has it: one entry that names no rows.
        first, *rest = WalEntry.objects.filter(seq=None).order_by("id")
        WalEntry.objects.filter(pk__in=[entry.pk for entry in rest]).delete()
        WalEntry.objects.filter(pk=first.pk).update(op="TRUNCATE", old=None, new=None)

    await db(empty)
    # Where the log stands nobody can tell any more; where it will stand, it is plain.
    await sets.acquire("late", [Select("zoo.Member", "team_id", TRUE, kind=Kind.INT)])
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    for event in await server.reader.from_table(server.log.seq, head.seq):
        shifts = sets.apply(event)
        assert shifts.of == {wanted[0]: SetDelta(removed=frozenset({team.pk}))}
        assert wanted[1] in shifts.stale
        await sets.read_again(shifts.stale)
        server.log.append(event)
    assert not any(sets.values([*wanted, *sets.retained("late")]).values())


async def test_a_set_that_was_captured_without_what_now_decides_is_read_again(
    people: list[Any],
) -> None:
    team, ada, _ = people
    owned = Select("zoo.Member", "team_id", Not(Test("role", "exact", "guest")), kind=Kind.INT)
    server = await started()
    # Not by the policies of now: the first reader of the roles has them captured.
    await db(Member.objects.create, user=ada.user, team=team, role="guest")
    await db(policies, {"team__in": {**MINE, "where": {"not": {"role": "guest"}}}})
    sets = LiveSetStore("default", server.log, AccessWatch("default"))
    await sets.acquire("test", [owned])
    assert sets.values([owned]) == {owned: frozenset()}
    await db(Member.objects.all().update, role="member")
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    for event in await server.reader.from_table(server.log.seq, head.seq):
        shifts = sets.apply(event)
        if shifts.stale:
            await sets.read_again(shifts.stale)
        server.log.append(event)
    assert sets.values([owned]) == {owned: {team.pk}}


async def test_where_the_log_goes_on_elsewhere_everything_is_read_again(
    people: list[Any],
) -> None:
    team, ada, _ = people
    server = await started()
    subscriber = await listening(server, ada)
    await db(Member.objects.create, user=ada.user, team=team)
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    await server.rebinding.restart(Position(head.epoch, head.seq))
    server.log.start(head)
    assert subscriber.notices == ["resubscribed"]
    await db(Note.objects.create, title="a", team=team)
    await server.feed()
    assert subscriber.frames == ["live"]


async def test_a_change_of_one_user_binds_his_own_requests_and_a_policy_those_on_its_table(
    people: list[Any], granted: Any
) -> None:
    _, ada, bob = people
    server = await started()
    hers, his = [await listening(server, subject) for subject in (ada, bob)]
    teams = FakeSubscriber()
    await server.subscriptions.add(teams, Request(ada, bindings(table="zoo_team")))
    await db(User.objects.filter(pk=ada.user.pk).update, is_superuser=True)
    await server.feed()
    assert [subscriber.notices for subscriber in (hers, teams, his)] == [["resubscribed"]] * 2 + [
        []
    ]
    await db(User.objects.filter(pk=ada.user.pk).update, is_superuser=False)
    await server.feed()
    await db(Policy.objects.update, using={"title": "a"})
    with counting() as statements:
        await server.feed()
    assert [len(subscriber.notices) for subscriber in (hers, teams, his)] == [3, 2, 1]
    # Who listens to another table was not even looked up.
    assert sum('FROM "auth_user"' in statement for statement in statements) == 1
    await db(User.objects.filter(pk=bob.user.pk).delete)
    await server.feed()
    assert his.notices == ["resubscribed", "revoked"]
