"""The demo without a browser: what `load_demo` makes, and what its views let whom see and do."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from auth_rls.models import Policy
from demo import seed
from demo.models import Membership, Message, Task, Team

pytestmark = pytest.mark.django_db

KITCHEN_TASK = "Find a second pizza oven"
PUBLIC_STAGE_TASK = "Publish the running order"


@pytest.fixture
def demo(settings: Any) -> None:
    settings.DEBUG = True
    call_command("load_demo", verbosity=0)


def signed_in(username: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=username))
    return client


def rows(client: Client) -> dict[str, Any]:
    response = client.get(reverse("board-rows"))
    assert response.status_code == 200
    return response.json()


def titles(client: Client) -> set[str]:
    return {row["title"] for row in rows(client)["demo_task"]}


def post(client: Client, name: str, body: Any = None, **kwargs: Any) -> tuple[int, dict[str, Any]]:
    response = client.post(
        reverse(name, kwargs=kwargs), json.dumps(body or {}), content_type="application/json"
    )
    return response.status_code, response.json()


def task(title: str) -> Task:
    return Task.objects.get(title=title)


def of_teams(*names: str) -> set[str]:
    return set(Task.objects.filter(team__name__in=names).values_list("title", flat=True))


def public() -> set[str]:
    return set(Task.objects.filter(is_public=True).values_list("title", flat=True))


def switch_off(*names: str) -> None:
    assert Policy.objects.filter(name__in=names).update(enabled=False) == len(names)


# load_demo


def test_loading_twice_changes_nothing(demo: None) -> None:
    models = (User, Policy, Team, Membership, Task, Message)
    before = [list(model.objects.order_by("pk").values()) for model in models]
    call_command("load_demo", verbosity=0)
    assert [list(model.objects.order_by("pk").values()) for model in models] == before


def test_loading_again_keeps_what_people_did(demo: None) -> None:
    task(KITCHEN_TASK).delete()
    switch_off("Tasks: owners see their own")
    call_command("load_demo", verbosity=0)
    assert not Task.objects.filter(title=KITCHEN_TASK).exists()
    assert not Policy.objects.get(name="Tasks: owners see their own").enabled


def test_a_reset_brings_back_rows_policies_and_passwords(demo: None) -> None:
    Task.objects.all().delete()
    Policy.objects.all().update(enabled=False)
    ben = User.objects.get(username="ben")
    ben.set_password("something else")
    ben.save()
    call_command("load_demo", "--reset", verbosity=0)
    assert Task.objects.count() == len(seed.TASKS)
    assert not Policy.objects.filter(enabled=False).exists()
    ben.refresh_from_db()
    assert ben.check_password(seed.PASSWORD)


def test_accounts_with_a_public_password_are_refused_where_debug_is_off(settings: Any) -> None:
    settings.DEBUG = False
    with pytest.raises(CommandError, match="public password"):
        call_command("load_demo", verbosity=0)
    assert not User.objects.exists()
    call_command("load_demo", "--insecure", verbosity=0)
    assert User.objects.exists()


def test_the_three_accounts_are_no_superusers_and_lead_different_teams(demo: None) -> None:
    people = [person for person in seed.PEOPLE if person.signs_in]
    users = User.objects.filter(username__in=[person.username for person in people])
    assert len(people) == users.count() == 3
    assert not users.filter(is_superuser=True).exists()
    led = Membership.objects.filter(user__in=users, role="lead").values_list("team", flat=True)
    assert len(set(led)) == 3


def test_colleagues_cannot_sign_in(demo: None) -> None:
    for person in seed.COLLEAGUES:
        assert not User.objects.get(username=person.username).has_usable_password()


def test_the_logins_are_printed(settings: Any) -> None:
    settings.DEBUG = True
    output = io.StringIO()
    call_command("load_demo", stdout=output)
    for username in ("ada", "ben", "cleo", "admin"):
        assert f"{username} " in output.getvalue()


# Pages


def test_the_board_asks_people_to_sign_in() -> None:
    response = Client().get("/")
    assert response.status_code == 302
    assert response["Location"].startswith(reverse("login"))


def test_the_sign_in_page_offers_the_accounts_with_their_password(demo: None) -> None:
    page = Client().get(reverse("login")).content.decode()
    for username in ("ada", "ben", "cleo"):
        assert f"{username} / {seed.PASSWORD}" in page


def test_the_sign_in_page_offers_no_account_where_debug_is_off(settings: Any) -> None:
    settings.DEBUG = False
    page = Client().get(reverse("login")).content.decode()
    assert "Sign in as Ada" not in page
    assert 'name="username"' in page


@pytest.mark.parametrize("username", ["ada", "ben", "cleo", "admin"])
def test_a_demo_account_gets_in_with_the_password_on_the_page(demo: None, username: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.get(reverse("login"))
    form = {
        "username": username,
        "password": seed.PASSWORD,
        "csrfmiddlewaretoken": client.cookies["csrftoken"].value,
    }
    response = client.post(reverse("login"), form)
    assert response.status_code == 302
    assert client.get("/").status_code == 200


def test_the_other_name_of_the_server_is_offered_for_a_second_person(demo: None) -> None:
    page = Client().get(reverse("login"), headers={"host": "localhost:8000"}).content.decode()
    assert "http://127.0.0.1:8000/sign-in" in page


def test_the_page_carries_the_rows_as_data_that_cannot_break_out(demo: None) -> None:
    Task.objects.filter(title=KITCHEN_TASK).update(title="</script><script>alert(1)</script>")
    page = signed_in("ben").get("/").content.decode()
    assert "<script>alert(1)" not in page
    assert 'id="board-data"' in page


def test_only_staff_are_led_to_the_policies(demo: None) -> None:
    link = reverse("admin:auth_rls_policy_changelist")
    assert link in signed_in("ada").get("/").content.decode()
    assert link not in signed_in("ben").get("/").content.decode()
    assert signed_in("ada").get(link).status_code == 200
    assert signed_in("ben").get(link).status_code == 302


def test_the_admin_shows_a_person_the_same_rows_as_the_board(demo: None) -> None:
    page = signed_in("ada").get(reverse("admin:demo_task_changelist")).content.decode()
    assert KITCHEN_TASK in page
    assert "Print the wristbands" not in page
    hidden = task("Print the wristbands")
    detail = signed_in("ada").get(reverse("admin:demo_task_change", args=[hidden.pk]))
    assert detail.status_code == 302


# Who sees what


def test_rows_need_a_session() -> None:
    assert Client().get(reverse("board-rows")).status_code == 401


def test_members_see_the_tasks_of_their_teams_and_public_ones(demo: None) -> None:
    assert titles(signed_in("ada")) == of_teams("Stage", "Kitchen") | public()
    assert titles(signed_in("ben")) == of_teams("Kitchen") | public()
    assert titles(signed_in("cleo")) == of_teams("Gates") | public()


def test_a_superuser_sees_every_task_and_is_told_so(demo: None) -> None:
    client = signed_in("admin")
    assert len(titles(client)) == len(seed.TASKS)
    assert rows(client)["me"]["bypasses"]


def test_owners_see_their_tasks_after_leaving_the_team(demo: None) -> None:
    ada = signed_in("ada")
    Membership.objects.filter(user__username="ada").delete()
    assert titles(ada) == public() | {"Rent the dance floor"}


def test_messages_reach_the_team_everyone_or_their_author(demo: None) -> None:
    bodies = {row["body"] for row in rows(signed_in("cleo"))["demo_message"]}
    assert bodies == {
        "Gates open at ten on Saturday. Tell your people!",
        "Scanners survived an hour without network.",
    }
    Membership.objects.filter(user__username="cleo").delete()
    bodies = {row["body"] for row in rows(signed_in("cleo"))["demo_message"]}
    assert "Scanners survived an hour without network." in bodies


def test_only_people_behind_visible_rows_are_named(demo: None) -> None:
    named = {person["username"] for person in rows(signed_in("cleo"))["people"]}
    assert "elif" in named  # owns a public task
    assert "admin" not in named


def test_without_its_policies_the_board_is_empty(demo: None) -> None:
    ben = signed_in("ben")
    switch_off("Tasks: members see those of their teams")
    assert titles(ben) == public()
    switch_off("Tasks: everyone signed in sees public ones", "Tasks: owners see their own")
    assert titles(ben) == set()
    assert ben.get("/").status_code == 200


def test_rows_have_the_columns_of_the_stream(demo: None) -> None:
    row = rows(signed_in("ben"))["demo_task"][0]
    assert set(row) == {field.column for field in Task._meta.concrete_fields}


# Who may do what


def test_a_member_adds_a_task_in_their_own_name(demo: None) -> None:
    kitchen = Team.objects.get(name="Kitchen")
    body = {"team_id": kitchen.pk, "title": "  Count the ladles ", "is_public": True}
    status, answer = post(signed_in("ben"), "add-task", body)
    assert status == 200
    added = Task.objects.get(pk=answer["id"])
    assert (added.title, added.owner.username, added.status) == ("Count the ladles", "ben", "todo")
    assert added.position > max(
        Task.objects.exclude(pk=added.pk).filter(status="todo").values_list("position", flat=True)
    )


def test_nobody_adds_to_a_team_they_are_not_in(demo: None) -> None:
    gates = Team.objects.get(name="Gates")
    status, answer = post(signed_in("ben"), "add-task", {"team_id": gates.pk, "title": "Sneak in"})
    assert (status, answer["error"]) == (403, "No policy lets you add this task.")
    assert not Task.objects.filter(title="Sneak in").exists()


def test_a_task_moves_between_two_others(demo: None) -> None:
    above, below = task(KITCHEN_TASK), task("Order 400 compostable bowls")
    moved = task("Label everything with nuts in it")
    body = {"status": "doing", "after": above.pk, "before": below.pk}
    assert post(signed_in("ben"), "move-task", body, pk=moved.pk)[0] == 200
    moved.refresh_from_db()
    assert moved.status == "doing"
    assert above.position < moved.position < below.position


@pytest.mark.parametrize("neighbour", [{}, {"after": 10**9}, {"before": "x"}, {"after": [1]}])
def test_a_move_without_a_known_neighbour_goes_to_the_end(
    demo: None, neighbour: dict[str, Any]
) -> None:
    moved = task("Label everything with nuts in it")
    status, _ = post(signed_in("ben"), "move-task", {"status": "done", **neighbour}, pk=moved.pk)
    assert status == 200
    moved.refresh_from_db()
    seen = Task.objects.filter(status="done", team__name="Kitchen").exclude(pk=moved.pk)
    assert moved.position > max(seen.values_list("position", flat=True))


def test_what_may_be_seen_but_not_touched_is_refused(demo: None) -> None:
    seen = task(PUBLIC_STAGE_TASK)
    ben = signed_in("ben")
    for name, body in (
        ("edit-task", {"title": "Mine now"}),
        ("move-task", {"status": "done"}),
        ("delete-task", {}),
    ):
        assert post(ben, name, body, pk=seen.pk)[0] == 403
    seen.refresh_from_db()
    assert seen.title == PUBLIC_STAGE_TASK


def test_what_may_not_be_seen_does_not_exist(demo: None) -> None:
    hidden = task("Print the wristbands")
    ben = signed_in("ben")
    for name, pk in (("edit-task", hidden.pk), ("edit-task", 10**9), ("delete-task", hidden.pk)):
        assert post(ben, name, {"title": "x"}, pk=pk)[0] == 404


def test_leads_and_owners_delete_and_other_members_do_not(demo: None) -> None:
    theirs = task(KITCHEN_TASK)  # owned by Elif; Ada is a member, Ben the lead
    assert post(signed_in("ada"), "delete-task", pk=theirs.pk)[0] == 403
    assert post(signed_in("elif"), "delete-task", pk=theirs.pk)[0] == 200
    assert (
        post(signed_in("ben"), "delete-task", pk=task("Order 400 compostable bowls").pk)[0] == 200
    )


def test_a_disabled_policy_takes_the_right_to_change_with_it(demo: None) -> None:
    switch_off("Tasks: members change those of their teams")
    moved = task(KITCHEN_TASK)
    assert post(signed_in("ben"), "move-task", {"status": "done"}, pk=moved.pk)[0] == 403


def test_a_task_is_taken_by_members_of_its_team_only(demo: None) -> None:
    free = task(KITCHEN_TASK)
    ben = signed_in("ben")
    cleo = User.objects.get(username="cleo")
    assert post(ben, "edit-task", {"assignee_id": cleo.pk}, pk=free.pk)[0] == 400
    elif_ = User.objects.get(username="elif")
    assert post(ben, "edit-task", {"assignee_id": elif_.pk}, pk=free.pk)[0] == 200
    assert post(ben, "edit-task", {"assignee_id": None}, pk=free.pk)[0] == 200
    free.refresh_from_db()
    assert free.assignee is None


def test_a_message_goes_to_ones_team_or_to_everyone(demo: None) -> None:
    ben = signed_in("ben")
    kitchen, gates = (Team.objects.get(name=name) for name in ("Kitchen", "Gates"))
    assert post(ben, "add-message", {"body": "Hello", "team_id": kitchen.pk})[0] == 200
    assert post(ben, "add-message", {"body": "Hello all", "team_id": None})[0] == 200
    assert post(ben, "add-message", {"body": "Hello gates", "team_id": gates.pk})[0] == 403
    assert Message.objects.get(body="Hello all").is_public
    assert not Message.objects.get(body="Hello").is_public


@pytest.mark.parametrize(
    "body",
    [
        {"title": ""},
        {"title": " "},
        {"title": 7},
        {"title": "x" * 121},
        {"is_public": "yes"},
        {"assignee_id": "1"},
        [],
    ],
)
def test_a_body_that_makes_no_sense_is_refused_and_changes_nothing(demo: None, body: Any) -> None:
    kept = task(KITCHEN_TASK)
    before = Task.objects.filter(pk=kept.pk).values().get()
    response = signed_in("ben").post(
        reverse("edit-task", kwargs={"pk": kept.pk}),
        json.dumps(body),
        content_type="application/json",
    )
    assert response.status_code == 400
    assert response.json()["error"]
    assert Task.objects.filter(pk=kept.pk).values().get() == before


def test_writes_need_a_session_and_a_csrf_token(demo: None) -> None:
    kept = task(KITCHEN_TASK)
    assert post(Client(), "delete-task", pk=kept.pk)[0] == 401
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="ben"))
    url = reverse("delete-task", kwargs={"pk": kept.pk})
    assert client.post(url, "{}", content_type="application/json").status_code == 403
    assert Task.objects.filter(pk=kept.pk).exists()
    client.get("/")
    token = client.cookies["csrftoken"].value
    headers = {"x-csrftoken": token}
    response = client.post(url, "{}", content_type="application/json", headers=headers)
    assert response.status_code == 200
