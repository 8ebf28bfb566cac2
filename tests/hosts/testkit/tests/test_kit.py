"""The same functions under unittest, as `manage.py test` runs it."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from desk.models import Ticket
from django.test import TestCase, TransactionTestCase

from realtime.testing import (
    SetupError,
    assert_hidden,
    assert_visible,
    captured_changes,
    policy_matrix,
    realtime_server,
)

from .base import ANYBODY, MATRIX, left_over, people, ticket


class WithoutCommits(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada, cls.bob = people()

    def test_what_is_written_and_to_whom_it_is_sent(self) -> None:
        with captured_changes() as changes:
            lamp = ticket(self.ada)
        self.assertEqual([change.pk for change in changes.delivered_to(self.ada)], [lamp.pk])
        self.assertEqual(changes.delivered_to(self.bob), [])
        assert_visible(self.ada, lamp)
        assert_hidden(ANYBODY, lamp)
        found = policy_matrix([self.ada, self.bob, ANYBODY], [lamp], ["view", "delete"])
        self.assertEqual(found, MATRIX)

    def test_live_is_refused_with_what_to_do(self) -> None:
        refused = self.assertRaisesRegex(SetupError, "TransactionTestCase in place of TestCase")
        with refused, realtime_server():
            self.fail("it started")


class Live(TransactionTestCase):
    def tearDown(self) -> None:
        self.assertEqual(left_over(), [])

    def test_without_async(self) -> None:
        ada, bob = people()
        with realtime_server() as connect:
            mine = connect(user=ada).join("desk", changes=[Ticket])
            others = connect(user=bob).join("desk", changes=[Ticket])
            lamp = ticket(ada)
            self.assertEqual(mine.next_change(Ticket, type="INSERT").pk, lamp.pk)
            others.nothing()

    async def test_async(self) -> None:
        ada, bob = await sync_to_async(people)()
        async with realtime_server() as connect:
            mine = await (await connect(user=ada)).join("desk", changes=[Ticket])
            others = await (await connect(user=bob)).join("desk", changes=[Ticket])
            lamp = await Ticket.objects.acreate(owner=ada, title="Lamp")
            self.assertEqual((await mine.next_change(Ticket)).pk, lamp.pk)
            await others.nothing()
