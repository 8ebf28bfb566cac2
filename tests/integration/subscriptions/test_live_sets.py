"""Sets behind selects: tied to a place in the log, and from there on what the log makes of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth_rls import Subject
from auth_rls.models import Policy
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE, Not, Select, Test
from auth_rls.sets.live_set import SetDelta
from auth_rls.sets.reader import read_members
from realtime.event_log import sequencer
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.models import WalEntry
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.request import Request
from realtime.subscriptions.set_reader import SetReader
from realtime.util.database_threads import close_connections
from realtime.wal import triggers
from realtime.wal.head import read_head
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings, counting
from tests.support.waiting import PATIENCE_SECONDS, auntil
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("wal")]

MINE = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}


def of_user(user: int) -> Select:
    return Select("zoo.Member", "team_id", Test("user_id", "exact", user), kind=Kind.INT)


def named(user: int) -> Select:
    """The names of somebody's teams, each with a prefix: rows of one table chosen by another."""
    return Select("zoo.Team", "name", Test("id", "in", of_user(user)), prefix="room:")


def policies(*usings: Any) -> None:
    from django.contrib.auth.models import Permission

    for number, using in enumerate(usings):
        Policy.objects.create(
            name=f"policy {number}",
            permission=Permission.objects.get(codename="view_note"),
            using=using,
            audience="anyone",
        )


ROOMS = {"select": "name", "from": "zoo.Team", "where": {"id__in": MINE}, "prefix": "room:"}


class Past:
    """A log that is fed one event at a time, and the sets at each place as the database had
    them when it stood there."""

    def __init__(self, selects: Iterable[Select]) -> None:
        self.server = Server()
        self.sets = LiveSetStore("default", self.server.log, AccessWatch("default"))
        self.selects = tuple(selects)
        self.was: dict[int, Any] = {}

    def fresh(self) -> dict[Select, frozenset[object]]:
        return {s: frozenset(read_members(s, "default")) for s in self.selects}

    def note(self) -> None:
        """What the sets are after the last change, which gets its number now."""
        sequencer.number(connections["default"], 10_000)
        self.was[read_head(connections["default"]).seq] = self.fresh()

    async def events(self) -> list[DatabaseEvent]:
        log, reader = self.server.log, self.server.reader
        await db(lambda: sequencer.number(connections["default"], 10_000))
        head = await reader.head()
        return list(await reader.from_table(log.seq, head.seq)) if head.seq > log.seq else []

    async def hand_out(self, event: DatabaseEvent) -> None:
        shifts = self.sets.apply(event)
        if shifts.stale:
            await self.sets.read_again(shifts.stale)
        self.server.log.append(event)

    def now(self) -> dict[Select, frozenset[object]]:
        return self.sets.values(s for s in self.selects if s in self.sets.retained("test"))


_step = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 1), st.integers(0, 2)),
    st.tuples(st.just("join"), st.integers(0, 1), st.integers(0, 2)),
    st.tuples(st.just("leave"), st.integers(0, 1), st.integers(0, 2)),
    st.tuples(st.just("leave one"), st.integers(0, 5)),
    st.tuples(st.just("move"), st.integers(0, 5), st.integers(0, 1), st.integers(0, 2)),
    st.tuples(st.just("give"), st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.just("raw"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("rename"), st.integers(0, 2), st.sampled_from(["a", "b"])),
    st.tuples(
        st.just("read"),
    ),
)


class Hands:
    """Writers' hands on memberships and teams."""

    def __init__(self) -> None:
        self.users = [User.objects.create_user(name).pk for name in ("ada", "bob")]
        self.teams = [Team.objects.create(name=name).pk for name in "abc"]

    def do(self, step: Any) -> None:
        members = Member.objects.order_by("pk")
        match step:
            case ("join", user, team):
                Member.objects.create(user_id=self.users[user], team_id=self.teams[team])
            case ("leave", user, team):
                members.filter(user=self.users[user], team=self.teams[team]).delete()
            case ("leave one", place):
                for member in members[place : place + 1]:
                    member.delete()
            case ("move", place, user, team):
                for member in members[place : place + 1]:
                    member.user_id, member.team_id = self.users[user], self.teams[team]
                    member.save()
            case ("give", one, other):
                members.filter(user=self.users[one]).update(user=self.users[other])
            case ("raw", one, other):
                with connection.cursor() as cursor:
                    cursor.execute(
                        "UPDATE zoo_member SET team_id = %s WHERE team_id = %s",
                        [self.teams[one], self.teams[other]],
                    )
            case ("rename", team, name):
                Team.objects.filter(pk=self.teams[team]).update(name=name)


async def history(steps: list[Any], begin: int) -> None:
    def prepare() -> tuple[Hands, Past]:
        with transaction.atomic():
            for model in (Member, Note, Team, Policy):
                model._base_manager.all().delete()
            User.objects.all().delete()
            policies({"team__in": MINE}, {"title__in": ROOMS})
            hands = Hands()
        triggers.reconcile()
        ada, bob = hands.users
        selects = [of_user(ada), of_user(bob), named(ada)]
        return hands, Past([*selects, Select("zoo.Member", "team_id", TRUE, kind=Kind.INT)])

    try:
        hands, past = await db(prepare)
        await db(past.note)
        past.server.log.start(await past.server.reader.head())
        late = [step for step in steps if step[0] == "read"]
        for place, step in enumerate(steps):
            if place == begin % len(steps):
                # The log stands behind: what is read must be what was there then.
                await past.sets.acquire("test", past.selects)
                assert past.now() == past.was[past.server.log.seq]
            await db(hands.do, step)
            await db(past.note)
            if step in late:
                # Taken over some events and read once more, the same is found.
                for event in (await past.events())[:2]:
                    await past.hand_out(event)
        if not past.sets.retained("test"):
            await past.sets.acquire("test", past.selects)
        for event in await past.events():
            await past.hand_out(event)
            if event.seq in past.was:
                assert past.now() == past.was[event.seq], event
                # Read once more for the same place, with all that came later taken back.
                assert await past.sets.read_again(past.selects) == {}
        assert past.now() == await db(past.fresh)
        past.sets.release("test")
        assert len(past.sets) == 0
    finally:
        await close_connections()


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(_step, min_size=1, max_size=10), begin=st.integers(0, 9))
def test_at_each_place_in_the_log_the_sets_are_what_the_database_had_there(
    steps: list[Any], begin: int
) -> None:
    asyncio.run(history(steps, begin))


@pytest.fixture
async def people(granted: Any) -> list[Any]:
    def make() -> list[Any]:
        granted("view_note", using={"team__in": MINE})
        ada, bob = (User.objects.create_user(name) for name in ("ada", "bob"))
        return [Team.objects.create(name="team"), Subject.from_user(ada), Subject.from_user(bob)]

    return await db(make)


async def started() -> Server:
    server = Server()
    await server.start()
    await server.feed()
    return server


async def listening(server: Server, subject: Subject, **binding: Any) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    await server.subscriptions.add(subscriber, Request(subject, bindings(**binding)))
    return subscriber


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


class Gate:
    """Holds up every reader of sets after the reading, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.reads = 0
        read = SetReader.read

        def late(reader: SetReader, *args: Any) -> Any:
            found = read(reader, *args)
            self.reads += 1
            self.reached.set()
            assert self.open.wait(PATIENCE_SECONDS)
            return found

        monkeypatch.setattr(SetReader, "read", late)


async def test_what_came_by_while_a_set_was_read_is_in_it(
    people: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    team, ada, _ = people
    server = await started()
    gate = Gate(monkeypatch)
    joining = asyncio.create_task(listening(server, ada))
    await asyncio.to_thread(gate.reached.wait)
    await db(Member.objects.create, user=ada.user, team=team)
    await db(Note.objects.create, title="a", team=team)
    await server.feed()
    gate.open.set()
    subscriber = await joining
    assert gate.reads == 1
    await db(Note.objects.create, title="b", team=team)
    await server.feed()
    # What came before the answer to the join was nobody's.
    assert subscriber.frames == ["live"]


async def test_a_nested_set_whose_inner_one_moved_while_it_was_read_is_read_once_more(
    people: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    team, ada, _ = people
    await db(policies, {"title__in": ROOMS})
    server = await started()
    gate = Gate(monkeypatch)
    joining = asyncio.create_task(listening(server, ada))
    await asyncio.to_thread(gate.reached.wait)
    await db(Member.objects.create, user=ada.user, team=team)
    await server.feed()
    gate.open.set()
    subscriber = await joining
    assert gate.reads == 2
    await db(Note.objects.create, title="room:team")
    await server.feed()
    assert subscriber.frames == ["live"]


async def test_a_set_that_was_read_for_a_place_the_log_has_left_is_read_once_more(
    people: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    team, ada, _ = people
    server = await started()
    gate = Gate(monkeypatch)
    joining = asyncio.create_task(listening(server, ada))
    await asyncio.to_thread(gate.reached.wait)
    await db(Member.objects.create, user=ada.user, team=team)
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    await server.rebinding.restart(Position(head.epoch, head.seq))
    server.log.start(head)
    gate.open.set()
    subscriber = await joining
    await db(Note.objects.create, title="a", team=team)
    await server.feed()
    assert subscriber.frames == ["live"]


async def test_a_join_that_is_given_up_while_its_set_is_read_leaves_nothing_behind(
    people: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ada, _ = people
    server = await started()
    gate = Gate(monkeypatch)
    joining = asyncio.create_task(listening(server, ada))
    await asyncio.to_thread(gate.reached.wait)
    joining.cancel()
    await asyncio.wait({joining})
    gate.open.set()
    subscriber = await listening(server, ada)
    assert len(server.subscriptions.sets) == 1
    server.channels.remove(subscriber)
    assert len(server.subscriptions.sets) == 0


async def test_who_joins_while_an_event_is_matched_gets_the_next_one_and_not_that_one(
    people: list[Any],
) -> None:
    server = await started()
    subscriber = FakeSubscriber()
    asked = bindings()
    first = await listening(server, Subject.service())
    await db(Note.objects.create, title="a")
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    (event,) = await server.reader.from_table(server.log.seq, head.seq)
    server.log.append(event)
    with server.channels.frozen():
        answer = await server.subscriptions.add(subscriber, Request(Subject.service(), asked))
        server.deliver(event)
    assert answer.at.seq == event.seq
    assert (first.frames, subscriber.frames) == (["live"], [])
    await db(Note.objects.create, title="b")
    await server.feed()
    assert (first.frames, subscriber.frames) == (["live"] * 2, ["live"])
