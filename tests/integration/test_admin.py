"""The log in the admin: found, filtered, shown in full width, and never changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.urls import reverse

import realtime
from realtime import admin as realtime_admin
from realtime.event_log import sequencer
from realtime.models import LogHead, WalEntry, WalRelation
from tests.support.vendors import on_sqlite
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.django_db

LIST = reverse("admin:realtime_walentry_changelist")


@pytest.fixture
def client(db: Any) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    WalEntry.objects.all().delete()
    return client


def page(client: Client, url: str, **query: str) -> str:
    response = client.get(url, query)
    assert response.status_code == 200
    return response.content.decode()


def keys(client: Client, **query: str) -> list[str | None]:
    response = client.get(LIST, query)
    assert response.status_code == 200
    return [entry.pk_text for entry in response.context["cl"].result_list]


def detail(client: Client, entry: WalEntry) -> str:
    return page(client, reverse("admin:realtime_walentry_change", args=[entry.pk]))


def number_all() -> None:
    sequencer.number(connection)


def test_entries_are_listed_newest_first_with_their_place_in_the_log(client: Client) -> None:
    Team.objects.create(pk=71, name="a")
    number_all()
    Team.objects.create(pk=72, name="b")
    assert keys(client) == ["72", "71"]
    text = page(client, LIST)
    assert "not numbered yet" in text
    entry = WalEntry.objects.get(pk_text="71")
    assert f"{entry.commit_timestamp:%Y-%m-%d %H:%M:%S.%f}Z" in text


def test_entries_are_found_by_table_key_and_seq(client: Client) -> None:
    Team.objects.create(pk=7100, name="a")
    Note.objects.create(pk=7200, title="b")
    number_all()
    seq = WalEntry.objects.get(pk_text="7200").seq
    assert keys(client, q="zoo_team") == ["7100"]
    assert keys(client, q="7200") == ["7200"]
    assert keys(client, q=str(seq)) == ["7200"]
    assert keys(client, q="zoo_note 7200") == ["7200"]
    assert keys(client, q="zoo_team 7200") == []
    assert keys(client, q="9" * 30) == []
    assert keys(client, q="²") == []


def test_entries_are_filtered_by_operation_and_table(client: Client) -> None:
    team = Team.objects.create(pk=71, name="a")
    Note.objects.create(pk=72, title="b")
    team.delete()
    assert keys(client, op__exact="DELETE") == ["71"]
    assert keys(client, table="zoo_note") == ["72"]
    assert keys(client, table="zoo_team", op__exact="INSERT") == ["71"]


def test_entries_show_who_wrote_and_are_found_by_it(client: Client) -> None:
    root = get_user_model().objects.get(username="root")
    with realtime.actor(root):
        Team.objects.create(pk=7100, name="a")
    with realtime.actor("import"):
        Team.objects.create(pk=7200, name="b")
    Team.objects.create(pk=7300, name="c")
    listed = page(client, LIST)
    assert f"root ({root.pk})" in listed and "import" in listed
    assert keys(client, q="root") == keys(client, q=f"{root.pk} zoo_team") == ["7100"]
    assert keys(client, q="import zoo_team") == ["7200"]
    assert keys(client, q="nobody") == []
    assert f"root ({root.pk})" in detail(client, WalEntry.objects.get(pk_text="7100"))


def test_the_images_are_shown_over_several_lines_digit_for_digit(client: Client) -> None:
    Note.objects.create(title="<b>bold</b>", price="12.50")
    Note.objects.update(score=1)
    text = detail(client, WalEntry.objects.latest("id"))
    assert "&quot;title&quot;: &quot;&lt;b&gt;bold&lt;/b&gt;&quot;,\n" in text
    assert "&quot;price&quot;: 12.50,\n" in text
    assert "&quot;score&quot;: null," in text
    assert "&quot;score&quot;: 1," in text


def test_long_values_are_cut_and_say_so(client: Client) -> None:
    Note.objects.create(title="t", body="x" * 5_000)
    text = detail(client, WalEntry.objects.latest("id"))
    assert f"{'x' * realtime_admin.MAX_VALUE} … 4500 more characters&quot;" in text
    assert "x" * (realtime_admin.MAX_VALUE + 1) not in text


@on_sqlite
def test_an_image_that_is_no_utf8_is_shown_all_the_same(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO zoo_team (name) VALUES (CAST(x'61ff' AS TEXT))")
    assert "a\ufffd" in detail(client, WalEntry.objects.defer("old", "new").latest("id"))
    page(client, LIST)


@pytest.mark.parametrize("model", ["walentry", "walrelation", "loghead"])
def test_nothing_can_be_added_changed_or_deleted(client: Client, model: str) -> None:
    Team.objects.create(name="a")
    rows = {"walentry": WalEntry, "walrelation": WalRelation, "loghead": LogHead}[model]
    row = rows.objects.first()
    assert row is not None
    page(client, reverse(f"admin:realtime_{model}_changelist"))
    url = reverse(f"admin:realtime_{model}_change", args=[row.pk])
    assert 'name="_save"' not in page(client, url)
    assert client.post(url, {}).status_code == 403
    delete = reverse(f"admin:realtime_{model}_delete", args=[row.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403
    assert client.get(reverse(f"admin:realtime_{model}_add")).status_code == 403


def test_without_the_permission_the_log_is_closed(client: Client) -> None:
    user = get_user_model().objects.create_user("staff", is_staff=True)
    client.force_login(user)
    assert client.get(LIST).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_walentry"))
    assert client.get(LIST).status_code == 200


def test_a_relation_shows_its_definition_whole(client: Client) -> None:
    relation = WalRelation.objects.get(table_name="zoo_specimen")
    url = reverse("admin:realtime_walrelation_change", args=[relation.pk])
    text = page(client, url)
    assert "&quot;generated&quot;" in text and "more characters" not in text


def test_what_is_no_json_is_shown_as_it_is() -> None:
    assert realtime_admin.pretty("not json") == "not json"
    deep = json.dumps({"a": 0}).replace("0", "[" * 5_000 + "]" * 5_000)
    # Laid out or as it is: how deep is too deep to lay out differs between versions of Python.
    assert "[[[" in realtime_admin.pretty(deep)
    assert realtime_admin.pretty("[" * 30_000).endswith("… 10000 more characters")
