"""At each place in the log the sets behind selects are what the database had there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth_rls.models import Policy
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE, Select
from auth_rls.sets.reader import read_members
from realtime.event_log import sequencer
from realtime.event_log.event import DatabaseEvent
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.util.database_threads import close_connections
from realtime.wal import triggers
from realtime.wal.head import read_head
from tests.support.live_sets import MINE, ROOMS, named, of_user, policies
from tests.support.socket_client import db
from tests.support.subscriptions import Server
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("wal")]


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


class Writer:
    """Writes memberships and teams."""

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
    def prepare() -> tuple[Writer, Past]:
        with transaction.atomic():
            for model in (Member, Note, Team, Policy):
                model._base_manager.all().delete()
            User.objects.all().delete()
            policies({"team__in": MINE}, {"title__in": ROOMS})
            writer = Writer()
        triggers.reconcile()
        ada, bob = writer.users
        selects = [of_user(ada), of_user(bob), named(ada)]
        return writer, Past([*selects, Select("zoo.Member", "team_id", TRUE, kind=Kind.INT)])

    try:
        writer, past = await db(prepare)
        await db(past.note)
        past.server.log.start(await past.server.reader.head())
        late = [step for step in steps if step[0] == "read"]
        for place, step in enumerate(steps):
            if place == begin % len(steps):
                # The log stands behind: what is read must be what was there then.
                await past.sets.acquire("test", past.selects)
                assert past.now() == past.was[past.server.log.seq]
            await db(writer.do, step)
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
