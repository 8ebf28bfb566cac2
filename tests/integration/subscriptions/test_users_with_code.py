"""Users whose attributes are computed by the project's code, or read when they are asked for."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from auth_rls import Subject
from auth_rls.subjects import tokens
from realtime.subscriptions.request import Request
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings
from tests.support.tokens import token
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")


async def started() -> Server:
    server = Server()
    await server.feed()
    await server.start()
    return server


async def handshake(server: Server, user: User) -> Subject:
    return await server.subscriptions.users.of_token(tokens.verified(token(user.pk)))


async def join(server: Server, subject: Subject) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    read = server.rebinding.generation
    await server.subscriptions.add(subscriber, Request(subject, bindings(), read=read))
    return subscriber


@pytest.mark.parametrize("name", ["is_active", "is_superuser"])
async def test_state_that_the_database_is_asked_for_is_read(
    granted: Any, monkeypatch: Any, name: str
) -> None:
    await db(granted, "view_note", using={"owner": "$user.id"}, audience="authenticated")
    user = await db(User.objects.create_user, "ada")
    answer = name == "is_active"
    asks = property(
        lambda user: User.objects.filter(username=user.username).exists() and answer,
        lambda user, value: None,
    )
    monkeypatch.setattr(User, name, asks)
    server = await started()
    subject = await handshake(server, user)
    channel = await join(server, subject)
    await db(lambda: Note.objects.create(title="mine", owner=user))
    await server.feed()
    assert channel.frames == ["live"]


async def test_a_deferred_field_that_policies_read_is_read(granted: Any, monkeypatch: Any) -> None:
    await db(granted, "view_note", using={"title": "$user.first_name"}, audience="authenticated")
    user = await db(lambda: User.objects.create_user("ada", first_name="mine"))
    manager = type(User._default_manager)
    everybody = manager.get_queryset
    monkeypatch.setattr(manager, "get_queryset", lambda self: everybody(self).defer("first_name"))
    server = await started()
    subject = await handshake(server, user)
    channel = await join(server, subject)
    await db(lambda: Note.objects.create(title="mine"))
    await server.feed()
    assert channel.frames == ["live"]
