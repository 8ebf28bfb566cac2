"""A refused join costs no more than one that is accepted, and is refused by what is true now."""

from __future__ import annotations

import asyncio

import pytest
from django.contrib.auth.models import Permission, User

from auth_rls import Subject
from auth_rls.models import Policy
from realtime.protocol.join import parse_join
from realtime.subscriptions.request import Request
from realtime.util.payer_queue import Payer
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, counting

pytestmark = pytest.mark.usefixtures("wal")


def allow(topic: str) -> None:
    permission = Permission.objects.get(
        codename="receive_broadcast", content_type__app_label="realtime"
    )
    Policy.objects.create(
        name=topic, permission=permission, using={"topic": topic}, audience="anyone"
    )


async def started() -> Server:
    server = Server()
    await server.start()
    await server.feed()
    return server


def policies_read(statements: list[str]) -> int:
    return sum('FROM "auth_rls_policy"' in statement for statement in statements)


async def test_many_refused_joins_read_the_policies_together() -> None:
    await db(allow, "open")
    server = await started()
    subject = Subject.from_user(await db(User.objects.create_user, "ada"))
    with counting() as statements:
        for _ in range(3):
            rights = await asyncio.gather(
                *(
                    server.subscriptions.rights(Request(subject, (), f"closed {number}"))
                    for number in range(100)
                )
            )
            assert not any(right.join for right in rights)
    assert policies_read(statements) <= 4


async def test_who_was_let_in_just_now_is_not_refused_by_what_was_read_before() -> None:
    server = await started()
    request = Request(Subject.anonymous(), (), "room")
    assert not (await server.subscriptions.rights(request)).join
    # Nothing of the log has been read since.
    await db(allow, "room")
    assert (await server.subscriptions.rights(request)).join


async def test_a_long_join_does_not_wait_for_all_long_joins_of_another_address() -> None:
    server = await started()
    order: list[str] = []
    # Together they are longer than what is read with the join itself.
    long = [
        {
            "event": "*",
            "schema": "public",
            "table": "zoo_note",
            "filter": f"title=eq.{n}{'x' * 900}",
        }
        for n in range(20)
    ]
    asked = parse_join({"config": {"postgres_changes": long}}).bindings

    async def join(address: str, number: int) -> None:
        payer = Payer(address, f"connection {number}")
        request = Request(Subject.anonymous(), asked, None, -1, payer)
        await server.subscriptions.add(FakeSubscriber(f"{address}-{number}"), request)
        order.append(address)

    many = [asyncio.create_task(join("10.0.0.1", number)) for number in range(60)]
    await asyncio.sleep(0)
    await join("10.0.0.2", 99)
    assert len(order) < 30
    await asyncio.gather(*many)
