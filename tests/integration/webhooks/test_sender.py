"""The sender: what waits is posted, in order, whatever other receivers do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from standardwebhooks import Webhook as Verifier

from realtime import publish
from realtime.models import Webhook, WebhookDelivery
from realtime.util.database_threads import close_connections
from realtime.wal import published
from realtime.webhooks import deliveries
from realtime.webhooks.payload import body_of
from realtime.webhooks.post import Bounds
from realtime.webhooks.sender import Sender
from tests.support.receivers import receiving, silent
from tests.support.socket_client import db
from tests.support.waiting import auntil
from tests.support.webhooks import delivery, webhook
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def tidy() -> AsyncIterator[None]:
    with override_settings(REALTIME={"WEBHOOK_ALLOW": ["127.0.0.1"]}):
        yield
    await close_connections()


@contextlib.asynccontextmanager
async def sending(**options: Any) -> AsyncIterator[Sender]:
    sender = Sender("default", look_seconds=0.02, **options)
    task = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def finished(pk: int) -> WebhookDelivery:
    async def row() -> WebhookDelivery | None:
        found = await db(WebhookDelivery.objects.get, pk=pk)
        return found if found.state != "pending" else None

    found: WebhookDelivery = await auntil(row, "the delivery is finished")
    return found


async def test_what_waits_is_posted_in_order_and_signed() -> None:
    async with receiving() as receiver:
        hook = await db(webhook, receiver.url, headers={"Authorization": "Bearer s"})
        rows = [await db(delivery, hook, number) for number in range(5)]
        async with sending():
            for row in rows:
                assert (await finished(row.pk)).state == "delivered"
    assert receiver.ids == [row.delivery_id for row in rows]
    request = receiver.received[0]
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer s"
    assert Verifier(hook.secret).verify(request.body, request.headers) == {"number": 0}


async def test_a_renewed_secret_signs_beside_the_former_one_for_a_time() -> None:
    former = "whsec_" + "Zm9y" * 10
    async with receiving() as receiver:
        for until, count in ((timedelta(hours=1), 2), (-timedelta(hours=1), 1)):
            hook = await db(
                webhook, receiver.url, former_secret=former, former_until=timezone.now() + until
            )
            row = await db(delivery, hook, count)
            async with sending():
                await finished(row.pk)
            assert len(receiver.received[-1].headers["webhook-signature"].split(" ")) == count


async def test_a_failure_is_tried_again_with_the_same_id() -> None:
    async with receiving(500, 200) as receiver:
        hook = await db(webhook, receiver.url)
        row = await db(delivery, hook)
        async with sending():
            await auntil(lambda: receiver.received, "the first attempt")

            async def due() -> bool:
                past = timezone.now() - timedelta(seconds=1)
                await db(Webhook.objects.update, rests_until=None)
                pending = WebhookDelivery.objects.filter(failures=1)
                return bool(await db(pending.update, due_at=past))

            await auntil(due, "the failure is noted")
            assert (await finished(row.pk)).state == "delivered"
    assert receiver.ids == [row.delivery_id] * 2


async def test_a_receiver_that_never_answers_delays_no_other_webhook() -> None:
    async with receiving(silent) as slow, receiving() as quick:
        for number in range(4):
            await db(delivery, await db(webhook, slow.url), number)
        row = await db(delivery, await db(webhook, quick.url), 100)
        async with sending(at_once=8):
            assert (await finished(row.pk)).state == "delivered"


async def test_no_more_requests_than_the_bound_are_under_way() -> None:
    async with receiving(silent) as slow:
        for number in range(5):
            await db(delivery, await db(webhook, slow.url), number)
        async with sending(at_once=2):
            await auntil(lambda: slow.connections == 2, "two requests")
            await asyncio.sleep(0)
            taken = Webhook.objects.exclude(sender="")
            assert await db(taken.count) == 2
        # Given back at the end of the process.
        assert await db(taken.count) == 0


async def test_receivers_that_do_not_answer_make_room_for_others() -> None:
    async with receiving(silent) as slow, receiving() as quick:
        for number in range(3):
            await db(delivery, await db(webhook, slow.url), number)
        row = await db(delivery, await db(webhook, quick.url), 100)
        async with sending(at_once=1, bounds=Bounds(total=0.1)):
            assert (await finished(row.pk)).state == "delivered"


async def test_two_senders_send_each_delivery_once() -> None:
    async with receiving() as receiver:
        hooks = [await db(webhook, receiver.url) for _ in range(3)]
        rows = [
            await db(delivery, hook, number * 10 + index)
            for index, hook in enumerate(hooks)
            for number in range(5)
        ]
        async with sending(), sending():
            for row in rows:
                await finished(row.pk)
    assert sorted(receiver.ids) == sorted(row.delivery_id for row in rows)


async def test_a_receiver_that_is_gone_gets_no_more() -> None:
    async with receiving(410) as receiver:
        hook = await db(webhook, receiver.url)
        for number in range(3):
            await db(delivery, hook, number)
        async with sending():

            async def disabled() -> bool:
                await db(hook.refresh_from_db)
                return not hook.enabled

            await auntil(disabled, "the webhook is disabled")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "values", [{"url": "nonsense"}, {"secret": "x"}, {"headers": {"Host": "evil"}}]
)
async def test_a_row_that_sql_spoiled_is_disabled_with_a_reason(values: Any) -> None:
    async with receiving() as receiver:
        hook = await db(webhook, receiver.url)
        await db(Webhook.objects.filter(pk=hook.pk).update, **values)
        await db(delivery, hook)
        trial = await db(deliveries.add_trial, hook)
        async with sending():
            row = await finished(trial.pk)
        assert row.state == "failed" and "It cannot be sent" in row.attempts[0]["error"]
        await db(hook.refresh_from_db)
        assert not hook.enabled and next(iter(values)) in hook.disabled_reason
    assert not receiver.connections


async def test_what_a_url_hides_in_its_path_is_in_no_log(caplog: Any) -> None:
    caplog.set_level("DEBUG")
    async with receiving(410) as receiver:
        hook = await db(webhook, receiver.url + "&token=s3cret")
        row = await db(delivery, hook)
        async with sending():
            await finished(row.pk)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("realtime")]
    assert any(hook.name in text for text in ours)
    assert not any("s3cret" in text or hook.secret in text for text in ours)


async def test_a_delivery_whose_id_sql_spoiled_is_no_request_and_no_failure_of_the_sender() -> None:
    async with receiving() as receiver:
        hook = await db(webhook, receiver.url)
        bad = await db(delivery, hook, 1, delivery_id="a\r\nhost: evil", by_hand=True)
        good = await db(delivery, hook, 2)
        async with sending():
            assert "cannot be made" in (await finished(bad.pk)).attempts[0]["error"]
            assert (await finished(good.pk)).state == "delivered"
    assert receiver.ids == [good.delivery_id]


async def test_without_time_zones_a_former_secret_ends_as_well() -> None:
    with override_settings(USE_TZ=False):
        async with receiving() as receiver:
            hook = await db(webhook, receiver.url)
            await db(hook.renew_secret)
            row = await db(delivery, hook)
            async with sending():
                await finished(row.pk)
    assert len(receiver.received[0].headers["webhook-signature"].split(" ")) == 2


@pytest.mark.usefixtures("declarations")
async def test_a_column_that_is_not_published_any_more_is_not_sent() -> None:
    values = {"id": 1, "title": "t1", "body": "s3cret"}
    text = body_of("UPDATE", "public", "zoo_note", values, values).decode()
    async with receiving() as receiver:
        hook = await db(webhook, receiver.url)
        async with sending():
            await finished((await db(delivery, hook, 1, body=text)).pk)
            publish(Note, exclude=["body"])
            await finished((await db(delivery, hook, 2, body=text)).pk)
            del published.declarations[Note._meta.label_lower]
            await finished((await db(delivery, hook, 3, body=text)).pk)
    verified = [Verifier(hook.secret).verify(one.body, one.headers) for one in receiver.received]
    shown = [values, {"id": 1, "title": "t1"}, {}]
    assert [body["record"] for body in verified] == shown
    assert [body["old_record"] for body in verified] == shown
