"""A revoked span stays revoked: a revocation and a grant that are read together take effect each at
its own place in the log, whichever table says so (RT-D2)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connections, transaction

from auth_rls import Subject
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.models import Policy
from realtime.dispatcher.dispatcher import Dispatcher
from realtime.event_log import sequencer
from realtime.event_log.batch import Batch
from realtime.models import WalEntry
from realtime.subscriptions.request import Request
from realtime.util.database_threads import close_connections
from realtime.wal.head import read_head
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, bindings
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("wal"),
    pytest.mark.slow,
]


class World:
    """Ada may see every note: by a policy for those who hold the permission, by her group."""

    def __init__(self) -> None:
        self.permission = Permission.objects.get(codename="view_note")
        self.other = Permission.objects.get(codename="add_note")
        self.policy = Policy.objects.create(
            name="notes", permission=self.permission, using=True, audience="permission"
        )
        self.group = Group.objects.create(name="readers")
        self.group.permissions.add(self.permission)
        self.ada = User.objects.create_user("ada")
        self.ada.groups.add(self.group)

    def policy_is(self, **values: Any) -> None:
        Policy.objects.filter(pk=self.policy.pk).update(**values)


@dataclass(frozen=True)
class Case:
    name: str
    revoke: Callable[[World], Any]
    grant: Callable[[World], Any]
    #: What Ada gets of the notes written before, between and after.
    seen: list[str] = field(default_factory=lambda: ["before", "after"])


def permitted_anew(world: World) -> None:
    """The permission is made again, with a policy of its own."""
    made = Permission.objects.create(
        codename="view_note", name="", content_type=ContentType.objects.get_for_model(Note)
    )
    world.ada.user_permissions.add(made)
    Policy.objects.create(name="again", permission=made, using=True, audience="permission")


def promoted(world: World) -> None:
    User.objects.filter(pk=world.ada.pk).update(is_superuser=True)


CASES = [
    Case(
        "a policy is edited",
        lambda w: w.policy_is(using={"title": "nothing"}),
        lambda w: w.policy_is(using=True),
    ),
    Case(
        "a policy is disabled",
        lambda w: w.policy_is(enabled=False),
        lambda w: w.policy_is(enabled=True),
    ),
    Case(
        "a policy is about another permission",
        lambda w: w.policy_is(permission=w.other),
        lambda w: w.policy_is(permission=w.permission),
    ),
    Case(
        "a policy is deleted and made anew",
        lambda w: w.policy.delete(),
        lambda w: Policy.objects.create(
            name="again", permission=w.permission, using=True, audience="permission"
        ),
    ),
    Case(
        "a restrictive policy comes and goes",
        lambda w: Policy.objects.create(
            name="none",
            permission=w.permission,
            using=False,
            audience="anyone",
            mode="restrictive",
        ),
        lambda w: Policy.objects.get(name="none").delete(),
    ),
    Case(
        "a group loses the permission",
        lambda w: w.group.permissions.remove(w.permission),
        lambda w: w.group.permissions.add(w.permission),
    ),
    Case(
        "a user leaves the group",
        lambda w: w.ada.groups.remove(w.group),
        lambda w: w.ada.groups.add(w.group),
    ),
    Case(
        "the group goes, and the user gets the permission",
        lambda w: w.group.delete(),
        lambda w: w.ada.user_permissions.add(w.permission),
    ),
    Case(
        "a permission is called otherwise",
        lambda w: Permission.objects.filter(pk=w.permission.pk).update(codename="x"),
        lambda w: Permission.objects.filter(pk=w.permission.pk).update(codename="view_note"),
    ),
    Case(
        "a permission is deleted, and its policies with it",
        lambda w: w.permission.delete(),
        permitted_anew,
    ),
    Case(
        "the model of a permission is called otherwise",
        lambda w: ContentType.objects.filter(model="note", app_label="zoo").update(model="x"),
        lambda w: ContentType.objects.filter(model="x", app_label="zoo").update(model="note"),
    ),
    Case(
        "a membership is given to another user",
        lambda w: User.groups.through.objects.update(user=User.objects.create_user("bob")),
        lambda w: User.groups.through.objects.update(user=w.ada),
    ),
    Case(
        "a superuser is one no more",
        lambda w: (
            w.group.permissions.clear(),
            User.objects.filter(pk=w.ada.pk).update(is_superuser=False),
        ),
        promoted,
    ),
    Case(
        "a user is deactivated",
        lambda w: User.objects.filter(pk=w.ada.pk).update(is_active=False),
        lambda w: User.objects.filter(pk=w.ada.pk).update(is_active=True),
        # The sockets of a deactivated user end.
        seen=["before"],
    ),
]


@pytest.fixture
async def dispatcher() -> AsyncIterator[Dispatcher]:
    made = Dispatcher("default", 1_000)
    yield made
    await made.stop()
    await close_connections()


async def listening(dispatcher: Dispatcher, user: User, **binding: Any) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    subject = Subject.from_user(await db(User.objects.get, pk=user.pk))
    await dispatcher.subscriptions.add(subscriber, Request(subject, bindings(**binding)))
    return subscriber


async def handed_out(dispatcher: Dispatcher) -> None:
    """All that is committed, read together."""

    def number() -> int:
        sequencer.number(connections["default"], 10_000)
        return read_head(connections["default"]).seq

    head = await db(number)
    dispatcher.receive(Batch(dispatcher.position.epoch, head, [], []))
    await auntil(lambda: dispatcher.position.seq == head)


def titles(subscriber: FakeSubscriber) -> list[str]:
    data = [json.loads(frame)[4]["data"] for frame in subscriber.frames]
    return [change["record"]["title"] for change in data if "record" in change]


@pytest.mark.parametrize("together", [False, True], ids=["transactions", "one transaction"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_is_written_between_a_revocation_and_a_grant_is_not_delivered(
    case: Case, together: bool, dispatcher: Dispatcher
) -> None:
    world = await db(World)
    if case.grant is promoted:
        await db(promoted, world)
    await dispatcher.start()
    subscriber = await listening(dispatcher, world.ada)

    def history() -> None:
        Note.objects.create(title="before")
        case.revoke(world)
        Note.objects.create(title="between")
        case.grant(world)
        Note.objects.create(title="after")

    def at_once() -> None:
        with transaction.atomic():
            history()

    await db(at_once if together else history)
    await handed_out(dispatcher)
    assert titles(subscriber) == case.seen
    assert ("revoked" in subscriber.notices) == (case.seen == ["before"])


@pytest.mark.parametrize("case", CASES[:-1], ids=lambda case: case.name)
async def test_what_is_written_between_a_grant_and_a_revocation_is_delivered(
    case: Case, dispatcher: Dispatcher
) -> None:
    world = await db(World)
    if case.grant is promoted:
        await db(promoted, world)
    await db(case.revoke, world)
    await dispatcher.start()
    subscriber = await listening(dispatcher, world.ada)

    def history() -> None:
        Note.objects.create(title="before")
        case.grant(world)
        Note.objects.create(title="between")
        for found in Policy.objects.all():
            found.delete()
        User.objects.filter(pk=world.ada.pk).update(is_superuser=False)
        Note.objects.create(title="after")

    await db(history)
    await handed_out(dispatcher)
    assert titles(subscriber) == ["between"]


async def test_a_field_of_the_user_that_a_policy_reads_counts_at_its_place(
    dispatcher: Dispatcher,
) -> None:
    world = await db(World)
    await db(world.policy_is, using={"body": "$user.first_name"})
    await dispatcher.start()
    subscriber = await listening(dispatcher, world.ada)

    def called(name: str) -> None:
        User.objects.filter(pk=world.ada.pk).update(first_name=name)

    def history() -> None:
        for name in ("", "x", "", "y"):
            called(name)
            Note.objects.create(title=f"when {name}", body="")
            Note.objects.create(title=f"x when {name}", body="x")

    await db(history)
    await handed_out(dispatcher)
    assert titles(subscriber) == ["when ", "x when x", "when "]


async def test_where_the_log_does_not_tell_nothing_is_delivered_and_the_client_hears_of_it(
    dispatcher: Dispatcher,
) -> None:
    world = await db(World)
    await dispatcher.start()
    await handed_out(dispatcher)
    subscriber = await listening(dispatcher, world.ada)

    def history() -> None:
        Note.objects.create(title="before")
        world.policy_is(using={"title": "between"})
        Note.objects.create(title="between")
        world.ada.groups.clear()
        # As PostgreSQL has it when a table is emptied: one entry that names no rows.
        WalEntry.objects.filter(table_name="auth_user_groups", op="DELETE").update(
            op="TRUNCATE", old=None, new=None
        )
        Note.objects.create(title="after")

    await db(history)
    await handed_out(dispatcher)
    assert titles(subscriber) == ["before"]
    assert "resync" in subscriber.notices


async def test_rights_that_cannot_be_computed_deny_and_stop_nothing(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await db(World)
    await dispatcher.start()
    await handed_out(dispatcher)
    subscriber = await listening(dispatcher, world.ada)

    def broken(*args: Any) -> PolicySnapshot:
        raise RuntimeError("the project's own code")

    def history(first: str, second: str) -> None:
        Note.objects.create(title=first)
        world.ada.groups.clear()
        world.ada.groups.add(world.group)
        Note.objects.create(title=second)

    with monkeypatch.context() as patched:
        patched.setattr(PolicySnapshot, "load_past", broken)
        await db(history, "one", "not known")
        await handed_out(dispatcher)
    assert titles(subscriber) == ["one"]
    assert "resync" in subscriber.notices
    await db(history, "still not", "two")
    await handed_out(dispatcher)
    assert titles(subscriber) == ["one", "two"]


async def test_a_live_set_loses_its_rows_and_gets_them_back(dispatcher: Dispatcher) -> None:
    world = await db(World)
    await db(Note.objects.create, title="a")
    await dispatcher.start()
    subscriber = await listening(dispatcher, world.ada, live=True)

    def history() -> None:
        world.ada.groups.remove(world.group)
        Note.objects.create(title="between")
        world.ada.groups.add(world.group)

    await db(history)
    await handed_out(dispatcher)
    await auntil(lambda: not dispatcher.subscriptions.channels.replaying(subscriber))
    # At the end the set is what she may see, whatever was told in between.
    rows = [json.loads(frame)[4]["data"] for frame in subscriber.frames]
    notes = await db(lambda: {note.title: note.pk for note in Note.objects.all()})
    held = {notes["a"]}
    for row in rows:
        if row["type"] == "DELETE":
            held.discard(row["old_record"]["id"])
        else:
            held.add(row["record"]["id"])
    assert held == set(notes.values())


async def test_many_changes_of_permissions_in_a_row_are_followed_together(
    dispatcher: Dispatcher,
) -> None:
    world = await db(World)
    await dispatcher.start()
    subscriber = await listening(dispatcher, world.ada)
    generation = dispatcher.subscriptions.rebinding.generation

    def history() -> None:
        for _ in range(100):
            world.ada.groups.remove(world.group)
            world.ada.groups.add(world.group)
        Note.objects.create(title="after")

    await db(history)
    await handed_out(dispatcher)
    assert titles(subscriber) == ["after"]
    assert subscriber.notices in ([], ["resubscribed"])
    assert dispatcher.subscriptions.rebinding.generation > generation
