"""From the log to deliveries: each change once, as its webhook asks for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection, transaction

from realtime.models import Handler, Webhook, WebhookDelivery
from realtime.wal.head import begin_epoch
from realtime.webhooks import handlers
from tests.support.handlers import running, until
from tests.support.log import number_all
from tests.support.vendors import on_postgresql
from tests.support.webhooks import webhook
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.usefixtures("wal")


def bodies() -> list[dict[str, Any]]:
    rows = WebhookDelivery.objects.order_by("pk")
    return [json.loads(body) for body in rows.values_list("body", flat=True)]


def made(count: int) -> list[dict[str, Any]]:
    until(lambda: WebhookDelivery.objects.count() >= count)
    return bodies()


def test_a_change_becomes_a_delivery_in_the_shape_of_supabase() -> None:
    hook = webhook()
    note = Note.objects.create(title="a", price="10.50")
    note.title = "b"
    note.save()
    key = note.pk
    note.delete()
    with running():
        inserted, updated, deleted = made(3)
    assert list(inserted) == ["type", "table", "schema", "record", "old_record"]
    assert inserted["type"] == "INSERT" and inserted["table"] == "zoo_note"
    assert inserted["record"]["id"] == key and inserted["old_record"] is None
    assert updated["record"]["title"] == "b" and updated["old_record"]["title"] == "a"
    assert deleted["record"] is None and deleted["old_record"]["id"] == key
    rows = list(WebhookDelivery.objects.order_by("pk"))
    assert [row.seq for row in rows] == sorted({row.seq for row in rows})
    assert all(row.webhook_id == hook.pk and row.state == "pending" for row in rows)
    assert '"price":10.50' in rows[0].body


def test_a_webhook_gets_what_it_asks_for_and_no_more() -> None:
    webhook(events=["UPDATE"], filter="score=gt.5", columns=["score"])
    note = Note.objects.create(title="a", score=9)
    for score in (1, 7):
        Note.objects.filter(pk=note.pk).update(score=score)
    Team.objects.create(name="t")
    number_all()
    webhook(tables=["zoo.Team"], events=["INSERT"])
    Team.objects.create(name="u")
    with running():
        both = made(2)
        until(lambda: all(row.seq >= 5 for row in Handler.objects.all()))
    found = {body["table"]: body for body in both}
    assert found["zoo_note"]["record"] == {"id": note.pk, "score": 7}
    assert found["zoo_note"]["old_record"] == {"id": note.pk, "score": 1}
    assert found["zoo_team"]["record"]["name"] == "u" and len(bodies()) == 2


@on_postgresql
def test_a_table_that_was_emptied_at_once_is_told_to_those_who_ask() -> None:
    webhook(events=["TRUNCATE"], filter="score=gt.5")
    webhook()
    Note.objects.create(title="a")
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE zoo_note CASCADE")
    with running():
        found = made(2)
    (emptied,) = [body for body in found if body["type"] == "TRUNCATE"]
    assert emptied["table"] == "zoo_note"
    assert emptied["record"] is None and emptied["old_record"] is None


def test_what_is_rolled_back_is_not_sent() -> None:
    webhook()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Note.objects.create(title="never")
        raise ZeroDivisionError
    Note.objects.create(title="a")
    with running():
        (only,) = made(1)
    assert only["record"]["title"] == "a"


def test_a_cursor_that_is_set_back_makes_no_change_twice() -> None:
    hook = webhook()
    Note.objects.create(title="a")
    with running():
        made(1)
    Handler.objects.filter(pk=handlers.name_of(hook.pk)).update(seq=0)
    Note.objects.create(title="b")
    with running():
        made(2)
        until(lambda: Handler.objects.get().seq >= 2)
    assert [body["record"]["title"] for body in bodies()] == ["a", "b"]
    assert len(set(WebhookDelivery.objects.values_list("delivery_id", flat=True))) == 2


def test_what_is_committed_after_a_webhook_is_sent_whenever_a_worker_starts() -> None:
    Note.objects.create(title="before")
    number_all()
    webhook()
    Note.objects.create(title="after")
    number_all()
    with running():
        (only,) = made(1)
    assert only["record"]["title"] == "after"


@pytest.mark.parametrize("way", ["save", "sql"])
def test_what_is_committed_while_a_webhook_is_off_is_not_sent(way: str) -> None:
    hook = webhook()
    with running():
        if way == "save":
            hook.enabled = False
            hook.save()
        else:
            Webhook.objects.update(enabled=False)
        until(lambda: not Handler.objects.exists())
        Note.objects.create(title="off")
        number_all()
        hook.enabled = True
        hook.save()
        Note.objects.create(title="on")
        (only,) = made(1)
    assert only["record"]["title"] == "on"


def test_a_webhook_that_is_deleted_leaves_no_cursor() -> None:
    webhook().delete()
    assert not Handler.objects.exists()


@pytest.mark.parametrize(
    "values", [{"tables": ["gone"]}, {"events": 7}, {"filter": "titel=eq.a"}, {"columns": {}}]
)
def test_a_row_that_sql_spoiled_is_disabled_and_the_others_go_on(values: Any) -> None:
    bad, good = webhook(), webhook()
    Webhook.objects.filter(pk=bad.pk).update(**values)
    Note.objects.create(title="a")
    with running():
        made(1)
        until(lambda: not Webhook.objects.get(pk=bad.pk).enabled)
    bad.refresh_from_db()
    assert next(iter(values)) in bad.disabled_reason
    assert WebhookDelivery.objects.filter(webhook=good).count() == 1


def test_a_webhook_whose_place_in_the_log_is_lost_goes_on_with_new_changes(caplog: Any) -> None:
    webhook()
    Note.objects.create(title="a")
    with running():
        made(1)
        begin_epoch(connection)
        until(lambda: "missed changes" in caplog.text)
        until(lambda: Handler.objects.filter(stopped="").exists())
        Note.objects.create(title="b")
        assert made(2)[1]["record"]["title"] == "b"
