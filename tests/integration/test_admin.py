"""The log in the admin: found, filtered, shown in full width, and never changed."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

import realtime
from realtime.admin import documents
from realtime.event_log import sequencer
from realtime.models import LogHead, Process, WalEntry, WalRelation
from realtime.wal import published
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


def selected_kind(client: Client, **query: str) -> str:
    """The choice that the filter by kind marks."""
    shown = client.get(LIST, query).context["cl"]
    choices = [
        c for spec in shown.filter_specs for c in spec.choices(shown) if spec.title == "kind"
    ]
    (selected,) = [choice["display"] for choice in choices if choice["selected"]]
    return str(selected)


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
    assert f"{entry.commit_timestamp:%Y-%m-%d %H:%M:%S.%f}Z" in text and "Documentation" in text


def test_entries_are_found_by_table_key_and_seq(client: Client) -> None:
    Team.objects.create(pk=7100, name="a")
    Note.objects.create(pk=7200, title="b")
    number_all()
    seq = WalEntry.objects.get(pk_text="7200").seq
    assert keys(client, q="zoo_team") == ["7100"]
    assert keys(client, q="7200") == ["7200"]
    # A user may have that number as its key.
    assert keys(client, q=str(seq), kind="published") == ["7200"]
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


def test_internal_entries_are_hidden_until_they_are_asked_for(client: Client) -> None:
    Team.objects.create(pk=7100, name="a")
    ada = str(get_user_model().objects.create_user("ada").pk)
    realtime.broadcast("lobby", "ping", {}, durable=True)
    assert keys(client) == ["7100"]
    assert "Published rows" in page(client, LIST)
    internal = keys(client, kind="internal")
    assert "7100" not in internal and ada in internal and len(internal) == 2
    assert keys(client, kind="all") == [*internal, "7100"]
    assert keys(client, kind="published") == ["7100"]
    assert selected_kind(client) == "Published rows"


def test_entries_that_a_search_names_are_shown_whatever_their_kind(client: Client) -> None:
    ada = str(get_user_model().objects.create_user("ada").pk)
    number_all()
    seq = WalEntry.objects.get(pk_text=ada).seq
    assert ada in keys(client, q=str(seq))
    for names in ({"table": "auth_user"}, {"q": "auth_user"}):
        assert keys(client, **names) == [ada]
        assert selected_kind(client, **names) == "All entries"
        assert keys(client, **names, kind="published") == []
    assert "All entries (1)" in page(client, LIST, q="auth_user", _facets="True")


def changes(client: Client) -> list[str]:
    """What the list says of changed columns, line by line."""
    found = re.findall(r'<td class="field-changes">(.*?)</td>', page(client, LIST))
    return [re.sub(r"<[^>]*>", "", cell) for cell in found]


def test_the_list_says_which_columns_an_update_changed(client: Client) -> None:
    note = Note.objects.create(title="a", body="b")
    Note.objects.filter(pk=note.pk).update(title="c", score=1)
    Note.objects.filter(pk=note.pk).update(title="c")
    big = Note.objects.create(title="a", body="x" * 100_000)
    Note.objects.filter(pk=big.pk).update(title="b")
    cells = changes(client)
    assert cells == ["too large to compare", "-", "nothing", "title, score", "-"]
    Note.objects.filter(pk=note.pk).update(
        title="d", body="e", score=2, price=1, is_public=True, created=timezone.now()
    )
    assert changes(client)[0].endswith(" +2")
    assert "is_<wbr>public" in page(client, LIST)


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


@pytest.mark.parametrize("actor", ["9" * 30, "-" + "9" * 30, "9" * 5000, "1e400", "²", "\u0661"])
def test_an_actor_that_can_be_no_users_key_is_shown_as_it_is(client: Client, actor: str) -> None:
    with realtime.actor(actor):
        Team.objects.create(pk=7100, name="a")
    entry = WalEntry.objects.get(pk_text="7100")
    assert str(entry.actor) in page(client, LIST)
    assert str(entry.actor) in detail(client, entry)
    assert keys(client, q=str(entry.actor)) == ["7100"]


def test_a_word_of_very_many_digits_finds_nothing(client: Client) -> None:
    Team.objects.create(pk=7100, name="a")
    assert keys(client, q="9" * 30) == keys(client, q="9" * 5000) == []


def test_names_of_users_are_shown_and_searched_for_those_who_may_view_them(client: Client) -> None:
    ada = get_user_model().objects.create_user("wilhelmina")
    with realtime.actor(ada):
        Team.objects.create(pk=7100, name="a")
    entry = WalEntry.objects.get(pk_text="7100")
    reader = get_user_model().objects.create_user("reader", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_walentry"))
    client.force_login(reader)
    for text in (page(client, LIST), detail(client, entry)):
        assert f">{ada.pk}<" in text and "wilhelmina" not in text
    assert keys(client, q="wilhelmina") == []
    assert keys(client, q=f"{ada.pk} zoo_team") == ["7100"]
    reader.user_permissions.add(Permission.objects.get(codename="view_user"))
    for text in (page(client, LIST), detail(client, entry)):
        assert f"wilhelmina ({ada.pk})" in text
    assert keys(client, q="wilhelmina") == ["7100"]


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
    assert f"{'x' * documents.MAX_VALUE} … 4500 more characters&quot;" in text
    assert "x" * (documents.MAX_VALUE + 1) not in text


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
    assert documents.pretty("not json") == "not json"
    deep = json.dumps({"a": 0}).replace("0", "[" * 5_000 + "]" * 5_000)
    # Laid out or as it is: how deep is too deep to lay out differs between versions of Python.
    assert "[[[" in documents.pretty(deep)
    assert documents.pretty("[" * 30_000).endswith("… 10000 more characters")


def process(**fields: Any) -> Process:
    now = timezone.now()
    given = {"kind": "server", "host": "web-1", "pid": 71, "version": "0", "started_at": now}
    given |= {"seen_at": now, "lease": now + timedelta(seconds=30), "id": uuid4().hex}
    return Process.objects.create(**given | fields)


def test_processes_say_what_they_are_without_ids_and_crosses(client: Client) -> None:
    url = reverse("admin:realtime_process_changelist")
    healthy = process()
    process(kind="tailer", pid=72, tailing=True, leading=True)
    process(kind="tailer", pid=73, tailing=True, behind=5)
    hour = timedelta(hours=2)
    process(kind="worker", pid=74, seen_at=timezone.now() - hour, lease=timezone.now() - hour)
    text = page(client, url)
    lines = [
        re.sub(r"<[^>]*>", "", state)
        for state in re.findall(r'<td class="field-state">(.*?)</td>', text)
    ]
    assert lines == [
        "runs",
        "runs, numbers the log",
        "runs, stands by to number",
        "not seen since its lease ended",
    ]
    assert "Server web-1:71" in text and "5 behind" in text and "hours ago" in text
    assert "icon-no" not in text and f">{healthy.pk}<" not in text
    whole = page(client, reverse("admin:realtime_process_change", args=[healthy.pk]))
    assert healthy.pk in whole and "icon-no" not in whole and "Documentation" in whole


def test_a_public_topic_has_no_cross(client: Client) -> None:
    realtime.broadcast("lobby", "ping", {}, durable=True)
    text = page(client, reverse("admin:realtime_message_changelist"))
    assert ">public<" in text and "icon-no" not in text


@pytest.mark.parametrize(
    ("model", "count"),
    [("presencemember", "0 members present"), ("message", "0 stored broadcasts")],
)
def test_names_of_many_read_well(client: Client, model: str, count: str) -> None:
    assert count in page(client, reverse(f"admin:realtime_{model}_changelist"))


@pytest.mark.usefixtures("declarations")
def test_what_is_not_published_any_more_is_not_shown_of_old_entries(
    client: Client,
) -> None:
    Note.objects.create(title="a title", body="a secret")
    Note.objects.update(title="another", body="a second one")
    entry = WalEntry.objects.latest("id")
    text = detail(client, entry)
    assert "a secret" in text and "a second one" in text and "not shown" not in text
    realtime.publish(Note, exclude=["body"])
    text = detail(client, entry)
    assert "another" in text and "a secret" not in text and "a second one" not in text
    assert "Not published, and not shown: body." in text
    assert '"realtime-changes">title<wbr></span>' in page(client, LIST)


@pytest.mark.parametrize("lookup", ["old__contains", "new__contains", "pk_text__startswith"])
def test_the_log_is_not_filtered_by_parts_of_what_may_be_withheld(
    client: Client, lookup: str
) -> None:
    Note.objects.create(pk=7100, title="a title", body="a secret")
    assert client.get(LIST, {lookup: "7"}).status_code == 400
    assert keys(client, pk_text="7100") == ["7100"]


def test_the_log_is_not_sorted_by_keys_that_may_be_withheld(client: Client) -> None:
    for key in (7102, 7101, 7103):
        Note.objects.create(pk=key)
    text = page(client, LIST)
    assert "row key" in text.lower()
    column = re.search(r'<th[^>]*class="[^"]*column-row_key[^"]*"', text)
    assert column is not None and "sortable" not in column.group()
    for number in range(1, 10):
        found = keys(client, o=str(number))
        assert sorted(found) == ["7101", "7102", "7103"]
        assert found != sorted(found) and keys(client, o=f"-{number}") != sorted(found)[::-1]


@pytest.mark.usefixtures("declarations")
def test_of_a_model_that_is_not_published_any_more_no_value_is_shown(client: Client) -> None:
    Note.objects.create(pk=71_000, title="a title", body="a secret")
    del published.declarations[Note._meta.label_lower]
    entry = WalEntry.objects.latest("id")
    text = detail(client, entry)
    assert "a title" not in text and "71000" not in text
    assert keys(client, kind="all") == ["-"]


def test_of_an_entry_whose_relation_is_lost_no_value_is_shown(client: Client) -> None:
    Note.objects.create(title="a title")
    entry = WalEntry.objects.latest("id")
    WalEntry.objects.filter(pk=entry.pk).update(relation_id="0" * 16)
    text = detail(client, entry)
    assert "a title" not in text and "Not published, and not shown" in text
