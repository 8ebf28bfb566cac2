"""Live sets: what a client keeps is what its subject may see, to the last byte, come what may."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import DatabaseError, connection, transaction
from django.db.models import Q
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth_rls import Subject
from auth_rls.models import Policy
from realtime.process.hub import close_hub, hub
from realtime.util.database_threads import close_connections
from realtime.wal import published, triggers
from tests.support.live_client import Keeper, everything_handed_out, expected
from tests.support.socket_client import Client, db
from tests.support.socket_users import user
from tests.support.tokens import token
from tests.support.waiting import auntil
from tests.zoo.models import Member, Note, Team

POLICIES: list[Any] = [
    {"is_public": True},
    {"owner": "$user.id"},
    {"any": [{"owner": "$user.id"}, {"is_public": True}]},
    {"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}},
    {
        "any": [
            {"is_public": True},
            {"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}},
        ]
    },
    {"not": {"score__gt": 3}},
    {"price__isnull": True, "body__contains": "a"},
    True,
]

_keys = st.integers(1, 6)
_values = st.fixed_dictionaries(
    {},
    optional={
        "owner_id": st.sampled_from([None, 0, 1]),
        "team_id": st.sampled_from([None, 0, 1]),
        "score": st.none() | st.integers(0, 6),
        "is_public": st.booleans(),
        "title": st.sampled_from(["a", "b", "ab", "\u2028 ü \\ \" '"]),
        "body": st.sampled_from(["", "a", "%"]),
        "price": st.none() | st.sampled_from(["0.10", "12.00"]),
    },
)
_step = st.one_of(
    st.tuples(st.just("put"), _keys, _values),
    st.tuples(st.just("put"), _keys, _values),
    st.tuples(st.just("update"), _keys, _values),
    st.tuples(st.just("update"), _keys, _values),
    st.tuples(st.just("update_all"), st.integers(0, 6), _values),
    st.tuples(st.just("delete"), _keys),
    st.tuples(st.just("rekey"), _keys, _keys),
    st.tuples(st.just("policy"), st.integers(0, 1), st.integers(0, len(POLICIES) - 1)),
    st.tuples(st.just("policy_off"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("join"), st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.just("leave"), st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.just("superuser"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("grant"), st.integers(0, 1), st.booleans()),
)
_writer = st.lists(st.tuples(st.lists(_step, min_size=1, max_size=4), st.booleans()), max_size=14)


class World:
    """Two users, two teams, two policies, and what writers do to them."""

    def __init__(self) -> None:
        Note.objects.all().delete()
        Policy.objects.all().delete()
        self.users = [User.objects.create_user(f"user {number}") for number in range(2)]
        self.teams = [Team.objects.create(name=f"team {number}") for number in range(2)]
        self.permission = Permission.objects.get(codename="view_note")
        self.policies = [
            Policy.objects.create(
                name=f"policy {number}",
                permission=self.permission,
                using=POLICIES[number],
                audience=("anyone", "permission")[number],
            )
            for number in range(2)
        ]
        for number in range(4):
            Note.objects.create(pk=number + 1, title="a", is_public=bool(number % 2), score=number)

    def gone(self) -> None:
        Note.objects.all().delete()
        Policy.objects.all().delete()
        User.objects.filter(pk__in=[user.pk for user in self.users]).delete()
        Team.objects.all().delete()

    def _values(self, values: dict[str, Any]) -> dict[str, Any]:
        found = dict(values)
        for name, among in (("owner_id", self.users), ("team_id", self.teams)):
            if found.get(name) is not None:
                found[name] = among[found[name]].pk
        return found

    def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("put", key, values):
                if not Note.objects.filter(pk=key).update(**self._values({"body": "", **values})):
                    Note.objects.create(pk=key, **self._values(values))
            case ("update", key, values) if values:
                Note.objects.filter(pk=key).update(**self._values(values))
            case ("update_all", score, values) if values:
                Note.objects.filter(score__lt=score).update(**self._values(values))
            case ("delete", key):
                Note.objects.filter(pk=key).delete()
            case ("rekey", key, other) if not Note.objects.filter(pk=other).exists():
                Note.objects.filter(pk=key).update(id=other)
            case ("policy", number, using):
                Policy.objects.filter(pk=self.policies[number].pk).update(using=POLICIES[using])
            case ("policy_off", number, enabled):
                Policy.objects.filter(pk=self.policies[number].pk).update(enabled=enabled)
            case ("join", user, team):
                Member.objects.create(user=self.users[user], team=self.teams[team])
            case ("leave", user, team):
                Member.objects.filter(user=self.users[user], team=self.teams[team]).delete()
            case ("superuser", user, is_superuser):
                User.objects.filter(pk=self.users[user].pk).update(is_superuser=is_superuser)
            case ("grant", user, given_):
                held = self.users[user].user_permissions
                (held.add if given_ else held.remove)(self.permission)

    def write(self, history: list[tuple[list[tuple[Any, ...]], bool]], seed: int) -> None:
        """Transactions of one writer, some of which are rolled back. In a thread of its own."""
        pace = random.Random(seed)
        try:
            for steps, kept in history:
                try:
                    with transaction.atomic():
                        for step in steps:
                            self.do(step)
                        if not kept:
                            raise _RolledBack
                except (_RolledBack, DatabaseError):
                    # Two writers may want one key, or wait for each other.
                    pass
                time.sleep(pace.choice((0, 0, 0.001, 0.01)))
        finally:
            connection.close()


class _RolledBack(Exception):
    pass


async def histories(writers: list[Any], seed: int) -> None:
    world = await db(World)
    pace = random.Random(seed)
    ada, bob = world.users
    filtered = Q(score__gt=2)
    keepers: list[tuple[Keeper, Callable[[], Any], Any]] = [
        (Keeper(), Subject.anonymous, None),
        (Keeper(token(ada.pk)), lambda: Subject.from_token(token(ada.pk)), None),
        (
            Keeper(token(ada.pk), filter="score=gt.2"),
            lambda: Subject.from_token(token(ada.pk)),
            filtered,
        ),
        (
            Keeper(token(bob.pk), filter="title=match.b"),
            lambda: Subject.from_token(token(bob.pk)),
            Q(title__contains="b"),
        ),
        (Keeper(token(bob.pk)), lambda: Subject.from_token(token(bob.pk)), None),
    ]
    restless = [keepers[1][0], keepers[4][0], keepers[2][0]]
    threads = [
        threading.Thread(target=world.write, args=(history, seed + number))
        for number, history in enumerate(writers)
    ]
    try:
        for keeper, _, _ in keepers[:3]:
            await keeper.start()
        for thread in threads:
            thread.start()
        for keeper, _, _ in keepers[3:]:
            await keeper.start()
        while any(thread.is_alive() for thread in threads):
            keeper = pace.choice(restless)
            await asyncio.sleep(pace.choice((0, 0.002, 0.02)))
            await keeper.drop()
            await asyncio.sleep(pace.choice((0, 0.005, 0.03)))
            await keeper.start()
        await everything_handed_out()

        def wanted() -> list[Any]:
            return [
                expected(subject(), None if q is None else Note.objects.filter(q))
                for _, subject, q in keepers
            ]

        for want, (keeper, _, _) in zip(await db(wanted), keepers, strict=True):
            await auntil(
                lambda want=want, keeper=keeper: keeper.rows == want,  # type: ignore[misc]
                f"{keeper.rows} is not {want} (resyncs: {keeper.resyncs}); that",
            )
            assert not keeper.faults, keeper.faults
            assert not keeper.closes
    finally:
        for thread in threads:
            await asyncio.to_thread(thread.join)
        for keeper, _, _ in keepers:
            if keeper.connected:
                await keeper.drop()
        await close_hub()
        await db(world.gone)
        await close_connections()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(writers=st.lists(_writer, min_size=2, max_size=3), seed=st.integers(0, 2**16))
def test_at_the_end_of_any_history_the_set_is_what_the_subject_may_see(
    wal: Any, writers: list[Any], seed: int
) -> None:
    asyncio.run(histories(writers, seed))


# --- one thing at a time ------------------------------------------------------------------------

plain = pytest.mark.usefixtures("wal", "closing_hub")


async def live(asker: str | None = None, **binding: Any) -> Client:
    client = await Client(**({"token": asker} if asker else {})).connect()
    await hub().ready()
    await everything_handed_out()
    await client.listen(live=True, **binding)
    return client


def brief(data: dict[str, Any]) -> tuple[str, Any]:
    """What a change is, and the row's title; its old record where there is no other."""
    record = data.get("record")
    return data["type"], data["old_record"] if record is None else record["title"]


@plain
async def test_a_row_that_comes_into_view_is_an_insert_and_one_that_leaves_is_its_key(
    granted: Any,
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    client = await live(filter="score=gt.2")
    note = await db(Note.objects.create, title="a", score=1, is_public=True)
    rows = Note.objects.filter(pk=note.pk)
    for values in ({"score": 3}, {"score": 4}, {"is_public": False}, {"is_public": True}):
        await db(rows.update, **values)
    await db(rows.update, score=None)
    await db(rows.update, title="unseen")
    await db(rows.update, score=5)
    await db(rows.delete)
    changes = [await client.change() for _ in range(7)]
    assert [brief(data) for data in changes[:6]] == [
        ("INSERT", "a"),
        ("UPDATE", "a"),
        ("DELETE", {"id": note.pk}),
        ("INSERT", "a"),
        ("DELETE", {"id": note.pk}),
        ("INSERT", "unseen"),
    ]
    assert "old_record" not in changes[0]
    assert "record" not in changes[2]
    assert changes[1]["old_record"]["score"] == 3
    assert changes[6]["type"] == "DELETE"
    assert changes[6]["old_record"]["title"] == "unseen"
    assert await client.silent()
    await client.close()


@plain
async def test_a_row_that_takes_another_key_leaves_under_the_old_one_and_comes_under_the_new(
    granted: Any,
) -> None:
    await db(granted, "view_note")
    client = await live()
    await db(Note.objects.create, pk=1, title="a")
    await client.change()
    await db(Note.objects.filter(pk=1).update, id=2)
    left, came = await client.change(), await client.change()
    assert (left["type"], left["old_record"]) == ("DELETE", {"id": 1})
    assert (came["type"], came["record"]["id"]) == ("INSERT", 2)
    assert left["seq"] == came["seq"]
    await client.close()


@plain
async def test_rows_come_and_go_with_a_membership(granted: Any) -> None:
    ada = await user("ada")
    rooms = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
    await db(granted, "view_note", using={"any": [{"is_public": True}, {"team__in": rooms}]})
    mine, other = [await db(Team.objects.create, name=name) for name in ("mine", "other")]
    for title, team in (("a", mine), ("b", mine), ("c", other)):
        await db(Note.objects.create, title=title, team=team, is_public=title == "a")
    client = await live(token(ada.pk))
    member = await db(Member.objects.create, user=ada, team=mine)
    assert brief(await client.change()) == ("INSERT", "b")
    await db(Member.objects.create, user=ada, team=other)
    came = await client.change()
    assert brief(came) == ("INSERT", "c")
    await db(member.delete)
    gone = await client.change()
    assert gone["type"] == "DELETE"
    assert list(gone["old_record"]) == ["id"]
    assert gone["seq"] > came["seq"]
    after = await db(Note.objects.create, title="d", team=other)
    assert (await client.change())["record"]["id"] == after.pk
    await client.close()


@plain
async def test_rows_come_and_go_with_a_policy_and_an_ordinary_binding_is_told_of_none(
    granted: Any,
) -> None:
    policy = await db(granted, "view_note", using={"is_public": True})
    for title, public in (("a", True), ("b", False)):
        await db(Note.objects.create, title=title, is_public=public)
    client = await live()
    ordinary = await Client().connect()
    await ordinary.listen()
    await db(Policy.objects.filter(pk=policy.pk).update, using={"is_public": False})
    assert [(await client.change())["type"] for _ in "ab"] == ["DELETE", "INSERT"]
    await db(Note.objects.create, title="c")
    assert brief(await ordinary.change()) == brief(await client.change()) == ("INSERT", "c")
    await client.close()
    await ordinary.close()


@plain
async def test_many_rows_come_at_once_all_of_them_and_each_once(granted: Any) -> None:
    policy = await db(granted, "view_note", using={"score": 1})
    await db(Note.objects.bulk_create, [Note(title=str(n), score=n % 3) for n in range(2_400)])
    client = await live()
    await db(Policy.objects.filter(pk=policy.pk).update, using={"score": 2})
    told = [await client.change() for _ in range(1_600)]
    assert [data["type"] for data in told] == ["DELETE"] * 800 + ["INSERT"] * 800
    assert len({data.get("record", data.get("old_record"))["id"] for data in told}) == 1_600
    await client.close()


@plain
async def test_too_many_rows_to_tell_of_are_a_resync(granted: Any, settings: Any) -> None:
    settings.REALTIME = {"LIMITS": {"snapshot_rows": 3}}
    policy = await db(granted, "view_note", using={"score": 1})
    await db(Note.objects.bulk_create, [Note(title=str(n), score=2) for n in range(4)])
    client = await live()
    await db(Policy.objects.filter(pk=policy.pk).update, using={"score": 2})
    await client.until(lambda f: f[3] == "system" and f[4]["message"] == "resync required")
    await db(Note.objects.create, title="next", score=2)
    assert brief(await client.change()) == ("INSERT", "next")
    await client.close()


@plain
async def test_another_subject_in_band_begins_the_set_anew(granted: Any) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(granted, "view_note", using={"owner": "$user.id"})
    await db(Note.objects.create, title="hers", owner=ada)
    await db(Note.objects.create, title="his", owner=bob)
    client = await live(token(ada.pk), snapshot=True)
    assert brief(await client.change()) == ("INSERT", "hers")
    await client.until(lambda f: f[3] == "system" and "count" in f[4])
    await client.push("realtime:room", "access_token", {"access_token": token(bob.pk)})
    again = await client.change()
    assert brief(again) == ("INSERT", "his")
    assert again["snapshot"] is True
    told = await client.until(lambda f: f[3] == "system" and "count" in f[4])
    assert told[4]["count"] == 1
    await client.close()


@plain
async def test_a_live_binding_of_one_kind_of_event_is_refused_in_words(granted: Any) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    binding = {"event": "INSERT", "schema": "public", "table": "zoo_note", "live": True}
    reply = await client.join(postgres_changes=[binding])
    assert reply["status"] == "ok"
    told = await client.until(lambda f: f[3] == "system")
    assert told[4]["status"] == "error"
    assert "live" in told[4]["message"]
    await db(Note.objects.create, title="a")
    assert await client.silent()
    await client.close()


@plain
async def test_a_change_of_what_is_not_shown_moves_a_row_and_is_otherwise_no_news(
    granted: Any,
) -> None:
    published.publish(Note, exclude=["is_public", "body"])
    try:
        await db(triggers.reconcile)
        await db(granted, "view_note", using={"is_public": True})
        await db(triggers.reconcile)
        client = await live()
        note = await db(Note.objects.create, title="a")
        rows = Note.objects.filter(pk=note.pk)
        await db(rows.update, is_public=True)
        assert brief(await client.change()) == ("INSERT", "a")
        await db(rows.update, body="unseen")
        await db(rows.update, is_public=False)
        left = await client.change()
        assert (left["type"], left["old_record"]) == ("DELETE", {"id": note.pk})
        await client.close()
    finally:
        published.publish(Note)
        await db(triggers.reconcile)
