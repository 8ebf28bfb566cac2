"""After any history of users, groups and permissions, a process that knows users answers as one
that reads them does."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, transaction

from auth_rls import Subject
from auth_rls.subjects import tokens
from auth_rls.subjects.token_errors import TokenError
from realtime.subscriptions.planner import Planner
from realtime.subscriptions.request import Request, Revoked
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings
from tests.support.tokens import token

pytestmark = pytest.mark.usefixtures("wal")

KEYS = (9_001, 9_002, 9_003)
STEPS = 25


def make(key: int) -> None:
    User.objects.update_or_create(pk=key, defaults={"username": str(key), "is_active": True})


def sql(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def toggle(key: int, name: str) -> None:
    """By a statement of another program."""
    sql(f"UPDATE auth_user SET {name} = NOT {name} WHERE id = %s", key)


def rename(key: int) -> None:
    User.objects.filter(pk=key).update(last_name=random.choice("abc"))


def move(key: int) -> None:
    """Into the group of readers, or out of it."""
    group = Group.objects.get(name="readers")
    user = User.objects.filter(pk=key).first()
    if user is not None:
        (user.groups.remove if group in user.groups.all() else user.groups.add)(group)


def grant(key: int) -> None:
    """To the user directly, or back."""
    permission = Permission.objects.get(codename="view_note")
    user = User.objects.filter(pk=key).first()
    if user is not None:
        held = user.user_permissions
        (held.remove if permission in held.all() else held.add)(permission)


def lend(_: int) -> None:
    """To the group, or back."""
    permission = Permission.objects.get(codename="view_note")
    held = Group.objects.get(name="readers").permissions
    (held.remove if permission in held.all() else held.add)(permission)


def replace(key: int) -> None:
    """Another user gets the key."""
    with transaction.atomic():
        User.objects.filter(pk=key).delete()
        make(key)


def give_up(key: int) -> None:
    """A transaction that changes much and is rolled back."""
    with transaction.atomic():
        toggle(key, "is_active")
        move(key)
        transaction.set_rollback(True)


CHANGES = (
    make,
    lambda key: toggle(key, "is_active"),
    lambda key: toggle(key, "is_superuser"),
    rename,
    move,
    grant,
    lend,
    lambda key: User.objects.filter(pk=key).delete(),
    replace,
    give_up,
)


def described(subject: Subject) -> tuple[object, ...]:
    user = subject.user
    name = None if user is None else user.last_name
    return subject.user_id, subject.bypasses_rls, user is None, name


def as_read(key: int) -> object:
    try:
        return described(Subject.from_token(token(key)))
    except TokenError as error:
        return type(error), error.reason


async def as_known(server: Server, key: int) -> object:
    try:
        return described(await server.subscriptions.users.of_token(tokens.verified(token(key))))
    except TokenError as error:
        return type(error), error.reason


def verdict(key: int) -> Any:
    subject = Subject.from_token(token(key))
    return Planner().plan(subject, bindings()).subscriptions[0].rls


@pytest.mark.parametrize("seed", range(2))
async def test_those_who_are_known_are_as_those_who_are_read(granted: Any, seed: int) -> None:
    random.seed(seed)
    await db(granted, "view_note", using={"title": "$user.last_name"}, audience="permission")
    await db(lambda: Group.objects.create(name="readers"))
    server = Server()
    await server.feed()
    await server.start()
    sockets: dict[int, Subject] = {}
    for _ in range(STEPS):
        key = random.choice(KEYS)
        await db(random.choice(CHANGES), key)
        # A new connection is decided by what is in the database, whatever the log has told.
        for each in KEYS:
            assert await as_known(server, each) == await db(as_read, each)
        if random.random() < 0.6:
            await server.feed()
            for each in KEYS:
                await joins_as_read(server, sockets, each)


async def joins_as_read(server: Server, sockets: dict[int, Subject], key: int) -> None:
    """A socket that has been open for long joins, once the log has told everything."""
    if key not in sockets:
        found = await db(as_read, key)
        if not isinstance(found[0], int):
            return
        sockets[key] = await server.subscriptions.users.of_token(tokens.verified(token(key)))
    subscriber = FakeSubscriber()
    try:
        await server.subscriptions.add(subscriber, Request(sockets[key], bindings()))
    except Revoked:
        del sockets[key]
        now = await db(as_read, key)
        assert not isinstance(now[0], int)
        return
    plan = server.channels.plan_of(subscriber)
    assert plan.subscriptions[0].rls == await db(verdict, key)
    server.channels.remove(subscriber)
