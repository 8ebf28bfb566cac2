"""Sets of memberships, and subscribers whose policies select from them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission

from auth_rls import Subject
from auth_rls.models import Policy
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import Select, Test
from realtime.subscriptions.request import Request
from tests.support.subscriptions import FakeSubscriber, Server, bindings

MINE = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}


def of_user(user: int) -> Select:
    return Select("zoo.Member", "team_id", Test("user_id", "exact", user), kind=Kind.INT)


def named(user: int) -> Select:
    """The names of somebody's teams, each with a prefix: rows of one table chosen by another."""
    return Select("zoo.Team", "name", Test("id", "in", of_user(user)), prefix="room:")


def policies(*usings: Any) -> None:
    for number, using in enumerate(usings):
        Policy.objects.create(
            name=f"policy {number}",
            permission=Permission.objects.get(codename="view_note"),
            using=using,
            audience="anyone",
        )


ROOMS = {"select": "name", "from": "zoo.Team", "where": {"id__in": MINE}, "prefix": "room:"}


async def started() -> Server:
    server = Server()
    await server.start()
    await server.feed()
    return server


async def listening(server: Server, subject: Subject, **binding: Any) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    await server.subscriptions.add(subscriber, Request(subject, bindings(**binding)))
    return subscriber
