"""Rows of deliveries: who has them, and what becomes of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from realtime.models import Webhook, WebhookDelivery
from realtime.webhooks import deliveries
from realtime.webhooks.answer import Answer
from realtime.webhooks.deliveries import FAILING, Job
from realtime.webhooks.retries import DELAYS
from tests.support.webhooks import delivery, webhook

pytestmark = pytest.mark.django_db

FINE = Answer(status=200, excerpt="ok", seconds=0.2)
BAD = Answer(status=500, excerpt="no", seconds=0.2)


def take(sender: str = "one", most: int = 10) -> list[int]:
    return deliveries.take("default", sender, most)


def job(of: Webhook, sender: str = "one") -> Job | None:
    return deliveries.next_job("default", sender, of.pk)


def record(row: WebhookDelivery, answer: Answer) -> None:
    row.refresh_from_db()
    hook = Webhook.objects.get(pk=row.webhook_id)
    deliveries.record("default", Job(hook, row), answer, 0.0)
    row.refresh_from_db()


def test_a_webhook_is_taken_by_one_sender_at_a_time() -> None:
    hook = webhook()
    delivery(hook)
    assert take("one") == [hook.pk] and take("two") == []
    assert job(hook, "two") is None and job(hook, "one") is not None
    deliveries.release("default", "two", hook.pk)
    assert take("two") == []
    deliveries.release("default", "one", hook.pk)
    assert take("two") == [hook.pk]


def test_after_the_lease_of_a_killed_sender_another_one_takes_over() -> None:
    hook = webhook()
    delivery(hook)
    take("one")
    Webhook.objects.update(sender_until=timezone.now() - timedelta(seconds=1))
    assert job(hook, "one") is None
    assert take("two") == [hook.pk] and job(hook, "two") is not None


def test_each_job_renews_the_lease() -> None:
    hook = webhook()
    delivery(hook)
    take()
    Webhook.objects.update(sender_until=timezone.now() + timedelta(seconds=1))
    assert job(hook) is not None
    hook.refresh_from_db()
    assert hook.sender_until and hook.sender_until > timezone.now() + timedelta(seconds=15)


def test_deliveries_go_in_the_order_of_the_log_and_a_failed_one_is_overtaken() -> None:
    hook = webhook()
    first, second = delivery(hook, 1), delivery(hook, 2)
    take()
    found = job(hook)
    assert found is not None and found.delivery == first
    record(first, BAD)
    assert job(hook) is None  # The webhook rests.
    Webhook.objects.update(rests_until=None)
    found = job(hook)
    assert found is not None and found.delivery == second


def test_nothing_of_disabled_and_of_resting_webhooks_is_sent_but_what_was_asked_for() -> None:
    off, resting = webhook(enabled=False), webhook()
    Webhook.objects.filter(pk=resting.pk).update(rests_until=timezone.now() + timedelta(hours=1))
    delivery(off, 1)
    delivery(resting, 2)
    assert take() == []
    asked = deliveries.add_trial(off)
    again = delivery(resting, 3, state="delivered", finished_at=timezone.now())
    assert deliveries.send_again(WebhookDelivery.objects.filter(pk=again.pk)) == 1
    assert sorted(take()) == [off.pk, resting.pk]
    for hook, expected in ((off, asked), (resting, again)):
        found = job(hook)
        assert found is not None and found.delivery == expected


def test_webhooks_that_waited_longest_come_first() -> None:
    hooks = [webhook() for _ in range(3)]
    for number, hook in enumerate(hooks):
        delivery(hook, number)
    served = take(most=1)
    deliveries.release("default", "one", served[0])
    assert served[0] not in take(most=2)


def test_an_attempt_is_logged_with_its_status_its_excerpt_and_its_time() -> None:
    row = delivery(webhook())
    record(row, BAD)
    record(row, Answer(error="no answer within 15 s", seconds=15.0))
    record(row, FINE)
    assert row.state == "delivered" and row.finished_at is not None
    assert [each["status"] for each in row.attempts] == [500, None, 200]
    assert row.attempts[1]["error"] == "no answer within 15 s"
    assert row.attempts[0]["excerpt"] == "no" and row.attempts[0]["seconds"] == 0.2


def test_a_delivery_is_tried_again_later_and_in_the_end_given_up() -> None:
    row = delivery(webhook())
    for _ in DELAYS:
        before = row.due_at
        record(row, BAD)
        assert row.state == "pending" and row.due_at > before
    record(row, BAD)
    assert row.state == "failed" and row.failures == len(DELAYS) + 1


def test_a_success_ends_the_failures_of_a_webhook() -> None:
    hook = webhook()
    record(delivery(hook, 1), BAD)
    hook.refresh_from_db()
    assert hook.failures == 1 and hook.failing_since and hook.rests_until
    record(delivery(hook, 2), FINE)
    hook.refresh_from_db()
    assert (hook.failures, hook.failing_since, hook.rests_until) == (0, None, None)


def test_a_receiver_that_is_gone_disables_its_webhook_at_once(caplog: Any) -> None:
    hook = webhook(headers={"Authorization": "s3cret"})
    row = delivery(hook)
    record(row, Answer(status=410))
    hook.refresh_from_db()
    assert not hook.enabled and "410" in hook.disabled_reason and row.state == "failed"
    assert hook.name in caplog.text and hook.secret not in caplog.text
    assert "s3cret" not in caplog.text


def test_a_day_of_failures_disables_a_webhook_with_the_last_one_as_its_reason() -> None:
    hook = webhook()
    row = delivery(hook)
    record(row, BAD)
    hook.refresh_from_db()
    assert hook.enabled
    Webhook.objects.update(failing_since=timezone.now() - FAILING)
    record(row, Answer(error="the name hooks.example cannot be found"))
    hook.refresh_from_db()
    assert not hook.enabled and "cannot be found" in hook.disabled_reason


def test_what_was_asked_for_is_tried_once_and_counts_against_nobody() -> None:
    hook = webhook()
    row = deliveries.add_trial(hook)
    record(row, BAD)
    hook.refresh_from_db()
    assert row.state == "failed" and hook.failures == 0 and hook.rests_until is None


def test_what_is_sent_again_has_the_same_id_and_body() -> None:
    row = delivery(webhook())
    before = row.delivery_id, row.body
    record(row, FINE)
    deliveries.send_again(WebhookDelivery.objects.all())
    row.refresh_from_db()
    assert (row.delivery_id, row.body) == before and row.state == "pending"
    assert len(row.attempts) == 1
    assert deliveries.send_again(WebhookDelivery.objects.all()) == 0


def test_the_same_change_is_one_delivery() -> None:
    hook = webhook()
    for _ in range(2):
        row = WebhookDelivery(webhook=hook, delivery_id="msg_1", table="t", event="INSERT", body="")
        deliveries.add("default", [row])
    assert WebhookDelivery.objects.count() == 1


def test_a_delivery_that_was_deleted_meanwhile_is_not_written() -> None:
    row = delivery(webhook())
    hook = Webhook.objects.get()
    found = Job(hook, WebhookDelivery.objects.get())
    row.delete()
    deliveries.record("default", found, FINE, 0.0)
    assert not WebhookDelivery.objects.exists()


@override_settings(REALTIME={"RETENTION": {"days": 2}})
def test_finished_deliveries_go_when_the_log_of_their_time_goes() -> None:
    hook, off = webhook(), webhook(enabled=False)
    now = timezone.now()
    old, recent = now - timedelta(days=3), now - timedelta(days=1)
    delivery(hook, 1, state="delivered", finished_at=old)
    delivery(hook, 2, state="failed", finished_at=old)
    delivery(off, 3, created_at=old)
    kept = [
        delivery(hook, 4, state="delivered", finished_at=recent),
        delivery(hook, 5, created_at=old),
        delivery(off, 6, created_at=recent),
    ]
    assert deliveries.prune("default") == 3 and deliveries.prune("default") == 0
    assert list(WebhookDelivery.objects.order_by("pk")) == kept


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        ({"minutes": 5}, timedelta(days=1)),
        ({"days": 7, "gigabytes": 1}, timedelta(days=7)),
        ({"gigabytes": 1}, timedelta(hours=72)),
    ],
)
def test_they_are_kept_a_day_at_least(retention: Any, kept: timedelta) -> None:
    with override_settings(REALTIME={"RETENTION": retention}):
        assert deliveries.kept_for() == kept


@pytest.mark.parametrize("attempts", [7, {"a": 1}])
def test_a_log_of_attempts_that_sql_spoiled_is_begun_anew(attempts: Any) -> None:
    row = delivery(webhook())
    WebhookDelivery.objects.update(attempts=attempts)
    record(row, FINE)
    assert row.state == "delivered" and len(row.attempts) == 1


def test_times_without_zones_do_as_well() -> None:
    with override_settings(USE_TZ=False):
        hook = webhook()
        row = delivery(hook)
        assert take() == [hook.pk] and job(hook) is not None
        record(row, BAD)
        record(row, FINE)
        assert row.state == "delivered" and deliveries.prune("default") == 0
