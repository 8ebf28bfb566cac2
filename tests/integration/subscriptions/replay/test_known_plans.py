"""Snapshots by plans that are known from before, as long as the log shows that they still hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connections

from auth_rls import Subject
from auth_rls.models import Policy
from realtime.event_log import sequencer
from realtime.subscriptions.planner import Plan, Planner
from realtime.subscriptions.replay.snapshot import SnapshotReader
from realtime.subscriptions.request import Request, Revoked
from realtime.wal import triggers
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings, counting
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")

DECIDING = ('FROM "auth_rls_policy"', 'FROM "auth_user"')


def readers(count: int) -> list[User]:
    """Users who may see notes by a group."""
    group = Group.objects.create(name="readers")
    group.permissions.add(Permission.objects.get(codename="view_note"))
    users = [User.objects.create_user(f"user {number}") for number in range(count)]
    group.user_set.add(*users)
    return users


async def started() -> Server:
    server = Server()
    await server.feed()
    await server.start()
    return server


async def rows_and_all(server: Server, users: list[User]) -> list[FakeSubscriber]:
    """Channels that have joined at once, each with a snapshot."""
    channels = [FakeSubscriber(f"channel {user.pk}") for user in users]
    read = server.rebinding.generation
    asked = bindings(snapshot=True)
    await asyncio.gather(
        *(
            server.subscriptions.add(channel, Request(Subject.from_user(user), asked, read=read))
            for channel, user in zip(channels, users, strict=True)
        )
    )
    await auntil(lambda: not any(map(server.channels.replaying, channels)))
    return channels


async def test_snapshots_of_many_read_policies_and_users_together(granted: Any) -> None:
    await db(granted, "view_note", audience="permission")
    users = await db(readers, 12)
    await db(Note.objects.create, title="a")
    server = await started()

    async def cost(some: list[User]) -> int:
        with counting() as statements:
            channels = await rows_and_all(server, some)
        assert [channel.notices[0] for channel in channels] == ["snapshot 1"] * len(some)
        return sum(any(text in statement for text in DECIDING) for statement in statements)

    assert await cost(users[:10]) <= await cost(users[10:]) + 4


class Known:
    """A server, a user who sees the note "a", and the user's plan as of now, whatever follows."""

    async def begin(self, granted: Any) -> Known:
        await db(granted, "view_note", audience="permission", using={"title": "a"})
        (self.user,) = await db(readers, 1)
        for title in "ab":
            await db(Note.objects.create, title=title)
        self.server = await started()
        self._request = Request(Subject.from_user(self.user), bindings(snapshot=True))
        self._plan = await db(lambda: self._request.plan(Planner()))
        return self

    async def _known(self, request: Request) -> tuple[Request, Plan]:
        return request, self._plan

    async def titles(self) -> list[str]:
        """What a snapshot shows to the user at the position of the server."""
        subscriptions = self.server.subscriptions
        reader = SnapshotReader("default", subscriptions.watch, subscriptions.users, self._known)
        wanted = {binding.id: None for binding in self._request.bindings}
        found = await reader.snapshot(self._request, self.server.log.position, wanted)
        return [json.loads(row.raw)["title"] for _, rows in found.sets for _, row in rows]


async def test_a_known_plan_serves_while_only_other_rows_change(granted: Any) -> None:
    known = await Known().begin(granted)
    await db(Note.objects.create, title="a")
    with counting() as statements:
        # The position of the server is before the note.
        assert await known.titles() == ["a"]
    assert not any(text in statement for statement in statements for text in DECIDING)


def edited(user: User) -> None:
    Policy.objects.update(using={"title": "b"})


def forbidden(user: User) -> None:
    Permission.objects.get(codename="view_note").group_set.clear()


def left(user: User) -> None:
    user.groups.clear()


def promoted(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_superuser=True)


@pytest.mark.parametrize(
    ("change", "shown"), [(edited, ["b"]), (forbidden, []), (left, []), (promoted, ["a", "b"])]
)
@pytest.mark.parametrize("numbered", [False, True])
async def test_a_known_plan_is_not_used_after_a_change_that_the_server_has_not_met(
    granted: Any, change: Callable[[User], None], shown: list[str], numbered: bool
) -> None:
    known = await Known().begin(granted)
    await db(change, known.user)
    if numbered:
        await db(lambda: sequencer.number(connections["default"], 1_000))
    assert sorted(await known.titles()) == shown


async def test_a_user_who_was_made_inactive_gets_no_snapshot_by_a_known_plan(granted: Any) -> None:
    known = await Known().begin(granted)
    await db(User.objects.filter(pk=known.user.pk).update, is_active=False)
    with pytest.raises(Revoked):
        await known.titles()


async def test_no_known_plan_is_used_where_changes_go_by_unseen(granted: Any) -> None:
    known = await Known().begin(granted)
    await db(triggers.uninstall, "default")
    await db(edited, known.user)
    assert await known.titles() == ["b"]


async def test_a_known_plan_is_not_used_by_a_process_that_does_not_follow_the_log(
    granted: Any,
) -> None:
    known = await Known().begin(granted)
    known.server.rebinding.end()
    with counting() as statements:
        assert await known.titles() == ["a"]
    assert all(any(text in statement for statement in statements) for text in DECIDING)
