"""Policies in the Django admin, through its pages."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db.models import Q
from django.test import Client
from django.utils.html import escape

from auth_rls import declare_policy
from auth_rls.models import Policy
from tests.support.policies import permission, policy, user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nothing_declared")]

LIST = "/admin/auth_rls/policy/"
ADD = f"{LIST}add/"
SEARCH = f"{LIST}permissions/"


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(
        user("root", is_superuser=True, is_staff=True),
        backend="django.contrib.auth.backends.ModelBackend",
    )
    return client


def form(using: str = "true", on: str = "zoo.view_note", **fields: Any) -> dict[str, Any]:
    return {
        "name": "Own notes",
        "permission": str(permission(on).pk),
        "audience": "permission",
        "mode": "permissive",
        "enabled": "on",
        "using": using,
        "with_check": "",
        **fields,
    }


def refused(admin: Client, data: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Errors by field and the page, for a form that must not be saved."""
    response = admin.post(ADD, data)
    assert response.status_code == 200
    assert not Policy.objects.exists()
    return response.context["adminform"].form.errors, response.content.decode()


def test_a_policy_is_added(admin: Client) -> None:
    assert admin.get(ADD).status_code == 200
    assert admin.post(ADD, form('{"owner": "$user.id"}')).status_code == 302
    saved = Policy.objects.get()
    assert saved.using == {"owner": "$user.id"} and saved.with_check is None


@pytest.mark.parametrize(("text", "value"), [("true", True), (" false\n", False)])
def test_a_predicate_may_be_true_or_false(admin: Client, text: str, value: bool) -> None:
    admin.post(ADD, form(text))
    assert Policy.objects.get().using is value


def test_a_policy_is_changed_and_its_history_kept(admin: Client) -> None:
    made = policy({"owner": "$user.id"}, name="Own notes")
    page = f"{LIST}{made.pk}/change/"
    text = admin.get(page).content.decode()
    assert escape('{"owner": "$user.id"}') in text
    assert "owner_id is the user" in text
    # What the predicates may name.
    assert "owner_id or owner" in text
    assert admin.post(page, form('{"is_public": true}')).status_code == 302
    made.refresh_from_db()
    assert made.using == {"is_public": True}
    assert "Using" in LogEntry.objects.get().get_change_message()
    assert admin.get(f"{LIST}{made.pk}/history/").status_code == 200


def test_saving_without_a_change_is_no_change(admin: Client) -> None:
    made = policy({"is_public": True}, name="Own notes", audience="permission")
    admin.post(f"{LIST}{made.pk}/change/", form('{"is_public":true}'))
    assert LogEntry.objects.get().get_change_message() == "No fields changed."


def test_an_empty_check_is_shown_empty(admin: Client) -> None:
    made = policy(True)
    response = admin.get(f"{LIST}{made.pk}/change/")
    assert response.context["adminform"].form["with_check"].value() is None
    assert ">null<" not in response.content.decode().replace("\n", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"owner": ', "line 1, column 11"),
        ("{'owner': 1}", "line 1, column 2"),
        ('{"score": 1, "score": 2}', "stands twice"),
        ('{"score": NaN}', "NaN is not a JSON value"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "not JSON"),
    ],
)
def test_bad_json_is_refused_and_kept_as_it_was_typed(
    admin: Client, text: str, reason: str
) -> None:
    errors, page = refused(admin, form(text))
    assert len(errors["using"]) == 1
    assert reason in errors["using"][0]
    assert escape(text) in page


def test_an_unknown_column_is_named_and_the_layout_kept(admin: Client) -> None:
    text = '{"any": [\n    {"ownr": "$user.id"},\n    {"is_public":true}\n]}'
    errors, page = refused(admin, form(text))
    assert "unknown column 'ownr' of zoo.Note; did you mean 'owner'?" in errors["using"][0]
    assert escape(text) in page


def test_each_error_stands_at_its_field(admin: Client) -> None:
    errors, _page = refused(admin, form("true", on="zoo.view_note", with_check="true"))
    assert list(errors) == ["with_check"]
    errors, _page = refused(admin, form("", on="zoo.view_note"))
    assert list(errors) == ["using"]
    errors, _page = refused(admin, form("{", permission=""))
    assert set(errors) == {"using", "permission"}


def test_the_list_says_what_each_policy_does_and_whether_it_works(admin: Client) -> None:
    policy({"is_public": True}, name="Public notes")
    policy(None, on="zoo.add_note", with_check={"owner": "$user.id"}, name="Adding own")
    policy({"ownr": 1}, name="Broken one")
    policy(True, name="Resting", enabled=False)
    text = admin.get(LIST).content.decode().replace("<wbr>", "")
    assert "zoo.view_note" in text and "zoo.add_note" in text
    assert "is_public is true" in text
    assert "new rows: owner_id is the user" in text
    assert "auth-rls-ok" in text and "auth-rls-off" in text
    assert "auth-rls-broken" in text and escape("unknown column 'ownr'") in text


def test_what_people_wrote_is_escaped(admin: Client) -> None:
    made = policy({"title": "<script>alert(1)</script>"}, name="<b>bold</b>")
    declare_policy("<i>code</i>", "zoo.view_note", using=Q(title="<u>x</u>"))
    for page in (LIST, f"{LIST}{made.pk}/change/"):
        text = admin.get(page).content.decode()
        assert "<script>alert(1)" not in text and "<b>bold" not in text
        assert "<i>code" not in text and "<u>x" not in text


def listed(admin: Client, **query: str) -> list[str]:
    """The names in the list, in its order."""
    response = admin.get(LIST, query)
    assert response.status_code == 200
    return [row.name for row in response.context["cl"].result_list]


def declare_two() -> None:
    declare_policy("Public in code", "zoo.view_note", audience="anyone", using=Q(is_public=True))
    declare_policy("Broken in code", "zoo.change_note", using=Q(ownr=1), mode="restrictive")


def test_policies_declared_in_code_stand_in_the_list_and_are_not_editable(admin: Client) -> None:
    declare_two()
    stored = policy(True, name="Of the database")
    text = admin.get(LIST).content.decode()
    table = text[text.index('id="result_list"') :].partition("</table>")[0]
    assert "Public in code" in table and "is_public is true" in table and __name__ in table
    assert "Broken in code" in table and escape("unknown column 'ownr'") in table
    assert "3 policies" in text and "Policies that stand in code are changed there" in text
    # A link, and a checkbox for actions, has the stored one alone.
    body = table[table.index("<tbody>") :]
    assert re.findall(r'<a href="([^"?]*)', body) == [f"{LIST}{stored.pk}/change/"]
    assert re.findall(r'name="_selected_action" value="([^"]*)"', body) == [str(stored.pk)]


def test_the_list_has_one_order_for_policies_of_both_places(admin: Client) -> None:
    declare_two()
    policy(True, name="B", on="zoo.view_note")
    policy(True, name="Z", on="zoo.change_note")
    policy(True, name="M", on="zoo.view_team")
    by_permission = ["Broken in code", "Z", "B", "Public in code", "M"]
    assert listed(admin) == by_permission
    names = ["B", "Broken in code", "M", "Public in code", "Z"]
    assert listed(admin, o="1") == names
    assert listed(admin, o="-1") == names[::-1]


def test_policies_in_code_are_searched_and_filtered_like_the_others(admin: Client) -> None:
    declare_two()
    policy(True, name="B", on="zoo.view_note", audience="anyone")
    policy(True, name="Off", on="zoo.view_team", audience="permission", enabled=False)
    assert listed(admin, q="public code") == ["Public in code"]
    assert listed(admin, q="zoo.change_note") == ["Broken in code"]
    assert listed(admin, enabled__exact="0") == ["Off"]
    assert listed(admin, enabled__exact="1") == ["Broken in code", "B", "Public in code"]
    assert listed(admin, mode__exact="restrictive") == ["Broken in code"]
    assert listed(admin, audience__exact="anyone") == ["B", "Public in code"]
    assert listed(admin, place="code") == ["Broken in code", "Public in code"]
    assert listed(admin, place="database") == ["B", "Off"]
    assert listed(admin, model="zoo.note") == ["Broken in code", "B", "Public in code"]
    # What the list has no filter for chooses none of them.
    assert listed(admin, audience__in="anyone,permission") == ["B", "Off"]


def test_long_lists_have_pages_of_both(admin: Client) -> None:
    declare_policy("In code 000", "zoo.view_note", using=True)
    Policy.objects.bulk_create(
        Policy(name=f"Stored {n:03}", permission=permission("zoo.view_note"), using=True)
        for n in range(100)
    )
    assert listed(admin)[:2] == ["In code 000", "Stored 000"] and len(listed(admin)) == 100
    assert listed(admin, p="2") == ["Stored 099"]
    assert len(listed(admin, all="")) == 101


def test_an_action_on_all_touches_no_policy_in_code(admin: Client) -> None:
    declare_two()
    policy(True, name="B")
    chosen = {"_selected_action": ["None"], "select_across": "1"}
    response = admin.post(LIST, {"action": "disable", **chosen}, follow=True)
    assert "1 policy disabled." in response.content.decode()


def test_policies_are_switched_off_and_on_from_the_list(admin: Client) -> None:
    first, second = policy(True), policy(True, enabled=False)
    chosen = {"_selected_action": [first.pk, second.pk]}
    admin.post(LIST, {"action": "disable", **chosen})
    assert not Policy.objects.filter(enabled=True).exists()
    assert LogEntry.objects.count() == 1
    response = admin.post(LIST, {"action": "enable", **chosen}, follow=True)
    assert "2 policies enabled." in response.content.decode()
    assert Policy.objects.filter(enabled=True).count() == 2


def test_permissions_are_found_by_app_model_and_action(admin: Client) -> None:
    def found(term: str) -> list[str]:
        results = admin.get(SEARCH, {"term": term}).json()["results"]
        return [item["text"] for item in results]

    assert found("zoo.view_note") == [str(permission("zoo.view_note"))]
    assert len(found("zoo note")) == 4
    assert found("no such thing") == []
    everything = admin.get(SEARCH, {"page": "1"}).json()
    assert len(everything["results"]) == 20 and everything["pagination"]["more"] is True


def test_the_search_is_for_those_who_may_edit_policies(client: Client) -> None:
    assert client.get(SEARCH).status_code == 302
    staff = user("staff", is_staff=True)
    client.force_login(staff, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(SEARCH).status_code == 403
    staff.user_permissions.add(permission("auth_rls.add_policy"))
    assert client.get(SEARCH).status_code == 200
    assert json.loads(client.get(SEARCH).content)["results"]


def test_who_may_only_view_sees_and_changes_nothing(client: Client) -> None:
    made = policy({"is_public": True})
    staff = user("staff", "auth_rls.view_policy", is_staff=True)
    client.force_login(staff, backend="django.contrib.auth.backends.ModelBackend")
    page = f"{LIST}{made.pk}/change/"
    assert "is_public is true" in client.get(page).content.decode()
    assert client.get(LIST).status_code == 200
    assert client.post(page, form()).status_code == 403
    client.post(LIST, {"action": "disable", "_selected_action": [made.pk]})
    made.refresh_from_db()
    assert made.enabled


def test_a_refused_form_leaves_no_trace(admin: Client) -> None:
    admin.post(ADD, form("{"))
    assert User.objects.count() == 1 and not LogEntry.objects.exists()


def columns(client: Client, on: str) -> Any:
    return client.get(f"{LIST}columns/", {"permission": on})


def test_the_columns_of_a_permission_are_there_as_soon_as_it_is_chosen(admin: Client) -> None:
    text = admin.get(ADD).content.decode()
    assert "Choose a permission" in text and 'id="auth-rls-columns"' in text
    table = columns(admin, str(permission("demo.view_task").pk)).content.decode()
    assert "team_id or team" in table and "key of demo.Team" in table and "icontains" in table
    assert "todo, " in table  # the choices of a field
    assert "Choose a permission" in columns(admin, "").content.decode()
    assert "Choose a permission" in columns(admin, "none").content.decode()
    closed = columns(admin, str(permission("sessions.view_session").pk)).content.decode()
    assert "not open to policies" in closed and "session_data" not in closed


def test_the_columns_are_for_those_who_may_see_or_write_policies(client: Client) -> None:
    client.force_login(
        user("staff", is_staff=True), backend="django.contrib.auth.backends.ModelBackend"
    )
    assert columns(client, str(permission("zoo.view_note").pk)).status_code == 403


def test_a_value_beside_the_choices_is_saved_with_a_warning(admin: Client) -> None:
    data = form('{"status": "opne"}', on="demo.view_task")
    page = admin.post(ADD, data, follow=True).content.decode()
    assert Policy.objects.count() == 1
    assert 'class="warning"' in page and escape("compared with 'opne'") in page


def test_a_join_is_answered_with_a_select(admin: Client) -> None:
    errors, _page = refused(admin, form('{"team__name": "Stage"}'))
    assert "no joins here" in errors["using"][0] and '"from": "zoo.Team"' in errors["using"][0]


@pytest.mark.parametrize("page", ["", "add/", "explain/?permission=zoo.view_note&pk=1&user="])
def test_the_pages_work_under_a_strict_content_security_policy(admin: Client, page: str) -> None:
    text = admin.get(f"{LIST}{page}").content.decode()
    body = text[text.index('id="content-main"') :]
    assert re.findall(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>", text) == []
    assert re.findall(r"<[^>]*\s(?:style|on\w+)=", body) == []
