"""Webhooks in the admin: made by a form that says what is wrong, tried, switched, sent again."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

from realtime import publish
from realtime.models import Webhook, WebhookDelivery
from realtime.webhooks import deliveries
from realtime.webhooks.payload import body_of
from tests.support.webhooks import delivery, webhook
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db

LIST = reverse("admin:realtime_webhook_changelist")
ADD = reverse("admin:realtime_webhook_add")
DELIVERIES = reverse("admin:realtime_webhookdelivery_changelist")
GIVEN: dict[str, Any] = {
    "name": "orders",
    "url": "https://hooks.example/T0/token",
    "tables": ["zoo_note"],
    "events": ["INSERT", "UPDATE"],
    "filter": "title=eq.a",
    "columns": "title, body",
    "headers": '{"Authorization": "Bearer t0ken"}',
    "secret": "whsec_" + "Zm9y" * 10,
    "enabled": "on",
}


@pytest.fixture
def client(db: Any) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    return client


def viewer(*codenames: str) -> Client:
    user = get_user_model().objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def change(pk: int) -> str:
    return reverse("admin:realtime_webhook_change", args=[pk])


def text_of(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def act(client: Client, url: str, action: str, *keys: int) -> str:
    data = {"action": action, "_selected_action": list(keys)}
    response = client.post(url, data, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def test_the_form_makes_a_webhook(client: Client) -> None:
    text = text_of(client, ADD)
    assert "zoo.Note (zoo_note)" in text and "service role" in text
    assert re.search(r'name="secret" value="whsec_', text)
    assert client.post(ADD, GIVEN).status_code == 302
    made = Webhook.objects.get()
    assert made.tables == ["zoo_note"] and made.events == ["INSERT", "UPDATE"]
    assert made.columns == ["title", "body"] and made.headers == {"Authorization": "Bearer t0ken"}
    assert made.secret == GIVEN["secret"] and made.enabled


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("url", "http://127.0.0.1/", "WEBHOOK_ALLOW"),
        ("url", "nonsense", "must begin with https"),
        ("tables", [], "required"),
        ("events", [], "required"),
        ("filter", "titel=eq.a", "Did you mean"),
        ("columns", "titel", "Did you mean"),
        ("headers", '{"Host": "x"}', "set by the webhook itself"),
        ("headers", "nonsense", "valid JSON"),
        ("secret", "x", "begins with whsec_"),
    ],
)
def test_the_form_says_at_each_field_what_is_wrong(
    client: Client, field: str, value: Any, said: str
) -> None:
    response = client.post(ADD, {**GIVEN, field: value})
    assert response.status_code == 200 and not Webhook.objects.exists()
    errors = response.context["adminform"].form.errors
    assert list(errors) == [field] and said in errors[field][0]


def test_a_webhook_whose_table_is_gone_can_be_mended(client: Client) -> None:
    hook = webhook(tables=["zoo.Note", "gone"])
    text = text_of(client, change(hook.pk))
    assert "gone (not published)" in text and text.count(" checked") >= 2
    assert client.post(change(hook.pk), GIVEN).status_code == 302
    hook.refresh_from_db()
    assert hook.tables == ["zoo_note"]


def test_the_list_shows_the_state_and_no_path_of_a_url(client: Client) -> None:
    webhook("https://hooks.example/T0/token", name="orders")
    webhook(name="old", enabled=False, disabled_reason="The receiver answered 410 Gone.")
    webhook(name="away", failures=3, failing_since=timezone.now())
    text = text_of(client, LIST)
    assert "https://hooks.example" in text and "/T0/" not in text
    assert "410 Gone" in text and "failing since" in text


def test_secrets_are_shown_to_those_alone_who_may_change_them() -> None:
    hook = webhook("https://hooks.example/T0/t0ken", headers={"X": "s3cret"})
    text = text_of(viewer("view_webhook"), change(hook.pk))
    assert hook.name in text
    for hidden in (hook.secret, "s3cret", "t0ken"):
        assert hidden not in text


@pytest.mark.parametrize(
    "lookup",
    ["secret__startswith", "former_secret", "url__contains", "headers__X__startswith"],
)
def test_no_list_is_filtered_by_what_is_not_shown(client: Client, lookup: str) -> None:
    webhook("https://hooks.example/T0/t0ken", headers={"X": "s3cret"})
    reader = viewer("view_webhook", "view_webhookdelivery")
    assert reader.get(LIST, {lookup: "w"}).status_code == 400
    assert reader.get(DELIVERIES, {f"webhook__{lookup}": "w"}).status_code == 400
    assert reader.get(DELIVERIES, {"body__contains": "w"}).status_code == 400
    assert reader.get(LIST, {"name__startswith": "hook"}).status_code == 200


def test_a_test_is_sent_also_by_one_that_is_disabled(client: Client) -> None:
    hook = webhook(enabled=False)
    assert "1 test is being sent" in act(client, LIST, "send_test", hook.pk)
    row = WebhookDelivery.objects.get()
    assert row.by_hand and row.event == "TEST" and row.table == "zoo_note"
    assert deliveries.take("default", "one", 1) == [hook.pk]


def test_enabling_forgives_what_was_and_refuses_what_cannot_work(client: Client) -> None:
    hook = webhook(enabled=False, disabled_reason="gone", failures=9, failing_since=timezone.now())
    bad = webhook(enabled=False, tables=["gone"])
    text = act(client, LIST, "enable", hook.pk, bad.pk)
    assert "1 webhook enabled" in text and "no published table" in text
    hook.refresh_from_db()
    bad.refresh_from_db()
    assert hook.enabled and not hook.disabled_reason and not hook.failures and not bad.enabled
    assert "1 webhook disabled" in act(client, LIST, "disable", hook.pk)
    assert LogEntry.objects.count() == 2


def test_so_does_the_form(client: Client) -> None:
    hook = webhook(enabled=False, disabled_reason="gone", failing_since=timezone.now())
    client.post(change(hook.pk), GIVEN)
    hook.refresh_from_db()
    assert hook.enabled and not hook.disabled_reason and hook.failing_since is None


def test_a_renewed_secret_leaves_the_former_one_a_day(client: Client) -> None:
    hook = webhook()
    former = hook.secret
    act(client, LIST, "renew_secret", hook.pk)
    hook.refresh_from_db()
    assert hook.secret != former and hook.former_secret == former
    assert hook.former_until and hook.former_until > timezone.now() + timedelta(hours=23)


def test_a_webhook_goes_with_its_deliveries(client: Client) -> None:
    hook = webhook()
    delivery(hook)
    url = reverse("admin:realtime_webhook_delete", args=[hook.pk])
    assert "webhook deliveries: 1" in text_of(client, url).lower()
    client.post(url, {"post": "yes"})
    assert not Webhook.objects.exists() and not WebhookDelivery.objects.exists()
    other = webhook()
    delivery(other)
    client.post(LIST, {"action": "delete_selected", "_selected_action": [other.pk], "post": "yes"})
    assert not Webhook.objects.exists()


def test_deliveries_are_read_and_sent_again(client: Client) -> None:
    hook = webhook(name="orders")
    attempts = [
        {"at": timezone.now().isoformat(), "status": 500, "excerpt": "<b>", "seconds": 1},
        {"at": "?", "status": None, "error": "no answer", "seconds": 15},
    ]
    row = delivery(hook, state="failed", finished_at=timezone.now(), attempts=attempts)
    text = text_of(client, DELIVERIES)
    assert "orders" in text and "no answer" in text and "Failed" in text
    detail = text_of(client, reverse("admin:realtime_webhookdelivery_change", args=[row.pk]))
    assert row.delivery_id in detail and "&lt;b&gt;" in detail and "500" in detail
    assert "1 delivery is sent again" in act(client, DELIVERIES, "send_again", row.pk)
    row.refresh_from_db()
    assert row.state == "pending"
    assert "msg_" in text_of(client, f"{DELIVERIES}?webhook={hook.pk}&state=pending")
    assert "msg_" not in text_of(client, f"{DELIVERIES}?webhook={hook.pk}&state=failed")


def test_who_may_only_view_deliveries_sends_none_again() -> None:
    row = delivery(webhook(), state="failed", finished_at=timezone.now())
    client = viewer("view_webhookdelivery")
    act(client, DELIVERIES, "send_again", row.pk)
    row.refresh_from_db()
    assert row.state == "failed"


@pytest.mark.parametrize("attempts", [7, [7], {"a": 1}, [{"at": 7, "status": "x"}]])
def test_what_sql_may_have_written_into_attempts_is_shown(client: Client, attempts: Any) -> None:
    row = delivery(webhook())
    WebhookDelivery.objects.update(attempts=attempts)
    text_of(client, DELIVERIES)
    text_of(client, reverse("admin:realtime_webhookdelivery_change", args=[row.pk]))


def test_a_project_without_time_zones_sees_the_same(client: Client) -> None:
    with override_settings(USE_TZ=False):
        hook = webhook(failures=1, failing_since=timezone.now())
        row = delivery(hook)
        text_of(client, LIST)
        text_of(client, DELIVERIES)
        text_of(client, reverse("admin:realtime_webhookdelivery_change", args=[row.pk]))


@pytest.mark.usefixtures("declarations")
def test_of_a_delivery_the_columns_are_shown_that_are_published_today(client: Client) -> None:
    body = body_of("INSERT", "public", "zoo_note", {"id": 1, "title": "t1", "body": "s3cret"}, None)
    row = delivery(webhook(), body=body.decode())
    url = reverse("admin:realtime_webhookdelivery_change", args=[row.pk])
    assert "s3cret" in text_of(client, url)
    publish(Note, exclude=["body"])
    text = text_of(client, url)
    assert "s3cret" not in text and "t1" in text
    assert "Not published, and not shown: body." in text
