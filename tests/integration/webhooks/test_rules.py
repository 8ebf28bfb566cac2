"""Rows of webhooks: what they may hold."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.test import override_settings

from realtime.models import Webhook, WebhookDelivery
from realtime.webhooks.rules import BadWebhook, choice_of, envelope_of, table_named
from tests.support.webhooks import delivery, webhook

pytestmark = pytest.mark.django_db


def full(**values: Any) -> Webhook:
    given = {"name": "orders", "url": "https://hooks.example/", "tables": ["zoo_note"], **values}
    return Webhook(**given)


def errors(**values: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as error:
        full(**values).full_clean()
    return error.value.message_dict


def test_a_webhook_needs_a_name_a_url_and_a_table_and_gets_a_secret_of_its_own() -> None:
    one, two = full(), full(name="two")
    one.full_clean()
    assert one.secret.startswith("whsec_") and one.secret != two.secret
    assert one.events == ["INSERT", "UPDATE", "DELETE"] and one.enabled
    assert one.secret not in repr(one)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("url", "http://hooks.example/", "https"),
        ("url", "https://127.0.0.1/", "WEBHOOK_ALLOW"),
        ("url", "https://user:pass@hooks.example/", "headers"),
        ("url", "nonsense", "https"),
        ("tables", [], "blank"),
        ("tables", "zoo_note", "list of published tables"),
        ("tables", [7], "list of published tables"),
        ("tables", {"zoo_note": 1}, "list of published tables"),
        ("tables", ["zoo_notes"], "Did you mean 'zoo_note'"),
        ("tables", ["auth_user"], "no published table"),
        ("events", [], "blank"),
        ("events", ["insert"], "no event 'insert'"),
        ("events", "INSERT", "list of events"),
        ("filter", "status=eq.paid", "status"),
        ("filter", "titel=eq.a", "Did you mean 'title'"),
        ("filter", "nonsense", "On zoo_note"),
        ("filter", "score=eq.many", "On zoo_note"),
        ("filter", "title=match.(", "On zoo_note"),
        ("columns", ["titel"], "Did you mean 'title'"),
        ("columns", "title", "list of columns"),
        ("headers", {"Host": "a"}, "set by the webhook itself"),
        ("headers", {"X": "a\r\nb"}, "line breaks"),
        ("headers", ["X"], "JSON object"),
        ("secret", "whsec_short", "base64"),
        ("secret", "secret", "begins with whsec_"),
    ],
)
def test_what_cannot_be_is_told_at_its_field(field: str, value: Any, said: str) -> None:
    found = errors(**{field: value})
    assert list(found) == [field] and said in found[field][0]


def test_every_field_is_told_of_at_once() -> None:
    found = errors(url="nonsense", filter="x=eq.1", secret="x", headers={"Host": "a"})
    assert set(found) == {"url", "filter", "secret", "headers"}


def test_a_name_is_there_once() -> None:
    webhook(name="orders")
    assert "name" in errors(name="orders")
    Webhook.objects.get(name="orders").full_clean()


def test_a_filter_must_fit_each_table_and_a_column_one_of_them() -> None:
    assert (
        "On zoo_team" in errors(tables=["zoo_note", "zoo_team"], filter="title=eq.a")["filter"][0]
    )
    full(tables=["zoo_note", "zoo_team"], columns=["title"]).full_clean()


@pytest.mark.parametrize("name", ["zoo_note", "public.zoo_note", "zoo.Note", "zoo.note"])
def test_a_table_has_the_names_that_people_know_it_by(name: str) -> None:
    found = table_named(name)
    assert found is not None and found.table == "zoo_note"


def test_the_key_is_sent_with_the_columns_that_were_chosen() -> None:
    assert choice_of(full(columns=["title"])).columns == {"id", "title"}
    assert choice_of(full()).columns is None


@pytest.mark.parametrize(
    "values",
    [
        {"tables": None},
        {"tables": []},
        {"events": []},
        {"events": 7},
        {"columns": 7},
        {"filter": None},
    ],
)
def test_what_sql_may_have_written_is_a_problem_and_no_failure(values: Any) -> None:
    with pytest.raises(BadWebhook):
        choice_of(full(**values))


@pytest.mark.parametrize("values", [{"headers": 7}, {"secret": ""}, {"url": ""}])
def test_so_it_is_with_where_requests_go(values: Any) -> None:
    with pytest.raises(BadWebhook):
        envelope_of(full(**values))


def test_the_setting_allows_a_receiver_of_ones_own() -> None:
    with override_settings(REALTIME={"WEBHOOK_ALLOW": ["localhost", "10.0.0.0/8"]}):
        full(url="http://localhost:8000/").full_clean()
        full(url="http://10.1.2.3/").full_clean()
        assert "url" in errors(url="http://192.168.0.1/")


def test_no_fixture_has_webhooks_and_one_that_has_is_loaded_without_them(tmp_path: Path) -> None:
    delivery(webhook(name="orders"))
    path = tmp_path / "dump.json"
    out = io.StringIO()
    call_command("dumpdata", stdout=out)
    assert "hooks.example" not in out.getvalue()
    models = ("realtime.webhook", "realtime.webhookdelivery")
    call_command("dumpdata", *models, use_base_manager=True, output=str(path), verbosity=0)
    assert "hooks.example" in path.read_text()
    Webhook.objects.all().delete()
    call_command("loaddata", str(path), verbosity=0)
    assert not Webhook.objects.exists() and not WebhookDelivery.objects.exists()
