"""The demo without a browser: what `load_demo` makes, and what its views let whom see and do."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from auth_rls.models import Policy
from demo import seed
from demo.models import Membership, Message, Task, Team
from realtime.models import WalEntry

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


def ask(client: Client, method: str, url: str, body: Any = None) -> tuple[int, Any]:
    """What the API answers: the status and the JSON."""
    response = client.generic(method, url, json.dumps(body or {}), "application/json")
    return response.status_code, response.json() if response.content else None


def task_url(task: Task, verb: str = "detail") -> str:
    return reverse(f"task-{verb}", kwargs={"pk": task.pk})


TASKS, MESSAGES = "/api/tasks/", "/api/messages/"


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
    status, answer = ask(signed_in("ben"), "POST", TASKS, body)
    assert status == 201
    added = Task.objects.get(pk=answer["id"])
    assert (added.title, added.owner.username, added.status) == ("Count the ladles", "ben", "todo")
    assert added.position > max(
        Task.objects.exclude(pk=added.pk).filter(status="todo").values_list("position", flat=True)
    )


def test_the_api_names_columns_as_the_stream_does(demo: None) -> None:
    _, answer = ask(signed_in("ben"), "GET", task_url(task(KITCHEN_TASK)))
    assert set(answer) == {field.column for field in Task._meta.concrete_fields}


def test_the_api_shows_a_person_the_same_rows_as_the_board(demo: None) -> None:
    for username in ("ada", "ben", "cleo", "admin"):
        client = signed_in(username)
        board = rows(client)
        for name in ("task", "message", "team"):
            _, page = ask(client, "GET", f"/api/{name}s/")
            assert {row["id"] for row in page["results"]} == {
                row["id"] for row in board[f"demo_{name}"]
            }
            assert page["count"] == len(page["results"])


def test_nobody_adds_to_a_team_they_are_not_in(demo: None) -> None:
    gates = Team.objects.get(name="Gates")
    body = {"team_id": gates.pk, "title": "Sneak in"}
    status, answer = ask(signed_in("ben"), "POST", TASKS, body)
    assert status == 403
    assert answer == {"detail": "No policy lets you add this task (demo.add_task)."}
    assert not Task.objects.filter(title="Sneak in").exists()


def test_nobody_adds_in_anothers_name_or_sends_a_task_to_another_team(demo: None) -> None:
    ben = signed_in("ben")
    kitchen, gates = (Team.objects.get(name=name) for name in ("Kitchen", "Gates"))
    cleo = User.objects.get(username="cleo")
    body = {"team_id": kitchen.pk, "title": "x", "owner_id": cleo.pk, "owner": cleo.pk}
    _, answer = ask(ben, "POST", TASKS, body)
    assert Task.objects.get(pk=answer["id"]).owner.username == "ben"
    status, answer = ask(ben, "PATCH", task_url(task("x")), {"team_id": gates.pk})
    assert status == 403
    assert answer == {"detail": "No policy lets you change the task to that (demo.change_task)."}
    assert task("x").team == kitchen


def test_a_task_moves_between_two_others(demo: None) -> None:
    above, below = task(KITCHEN_TASK), task("Order 400 compostable bowls")
    moved = task("Label everything with nuts in it")
    body = {"status": "doing", "after": above.pk, "before": below.pk}
    assert ask(signed_in("ben"), "POST", task_url(moved, "move"), body)[0] == 200
    moved.refresh_from_db()
    assert moved.status == "doing"
    assert above.position < moved.position < below.position


@pytest.mark.parametrize("neighbour", [{}, {"after": 10**9}, {"before": None}])
def test_a_move_without_a_known_neighbour_goes_to_the_end(
    demo: None, neighbour: dict[str, Any]
) -> None:
    moved = task("Label everything with nuts in it")
    body = {"status": "done", **neighbour}
    assert ask(signed_in("ben"), "POST", task_url(moved, "move"), body)[0] == 200
    moved.refresh_from_db()
    seen = Task.objects.filter(status="done", team__name="Kitchen").exclude(pk=moved.pk)
    assert moved.position > max(seen.values_list("position", flat=True))


def test_what_may_be_seen_but_not_touched_is_refused(demo: None) -> None:
    seen = task(PUBLIC_STAGE_TASK)
    ben = signed_in("ben")
    for method, url, body in (
        ("PATCH", task_url(seen), {"title": "Mine now"}),
        ("POST", task_url(seen, "move"), {"status": "done"}),
        ("DELETE", task_url(seen), {}),
    ):
        assert ask(ben, method, url, body)[0] == 403
    seen.refresh_from_db()
    assert seen.title == PUBLIC_STAGE_TASK


def test_what_may_not_be_seen_does_not_exist(demo: None) -> None:
    hidden = task("Print the wristbands")
    ben = signed_in("ben")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert ask(ben, method, task_url(hidden), {"title": "x"})[0] == 404
        assert ask(ben, method, task_url(Task(pk=10**9)), {"title": "x"})[0] == 404


def test_leads_and_owners_delete_and_other_members_do_not(demo: None) -> None:
    theirs = task(KITCHEN_TASK)  # owned by Elif; Ada is a member, Ben the lead
    assert ask(signed_in("ada"), "DELETE", task_url(theirs))[0] == 403
    assert ask(signed_in("elif"), "DELETE", task_url(theirs))[0] == 204
    bowls = task("Order 400 compostable bowls")
    assert ask(signed_in("ben"), "DELETE", task_url(bowls))[0] == 204


def test_a_disabled_policy_takes_the_right_to_change_with_it(demo: None) -> None:
    switch_off("Tasks: members change those of their teams")
    moved = task(KITCHEN_TASK)
    assert ask(signed_in("ben"), "POST", task_url(moved, "move"), {"status": "done"})[0] == 403


def test_a_task_is_taken_by_members_of_its_team_only(demo: None) -> None:
    free = task(KITCHEN_TASK)
    ada, url = signed_in("ada"), task_url(free)
    only_members = {"assignee_id": ["Only members of the team can take the task."]}
    # Cleo shares no team with Ada, Dana one that is not the task's.
    for username in ("cleo", "dana"):
        stranger = User.objects.get(username=username)
        assert ask(ada, "PATCH", url, {"assignee_id": stranger.pk}) == (400, only_members)
    elif_ = User.objects.get(username="elif")
    assert ask(ada, "PATCH", url, {"assignee_id": elif_.pk})[0] == 200
    stage = Team.objects.get(name="Stage")
    assert ask(ada, "PATCH", url, {"team_id": stage.pk}) == (400, only_members)
    assert ask(ada, "PATCH", url, {"assignee_id": None})[0] == 200
    free.refresh_from_db()
    assert free.assignee is None


def test_a_message_goes_to_ones_team_or_to_everyone(demo: None) -> None:
    ben = signed_in("ben")
    kitchen, gates = (Team.objects.get(name=name) for name in ("Kitchen", "Gates"))
    assert ask(ben, "POST", MESSAGES, {"body": "Hello", "team_id": kitchen.pk})[0] == 201
    assert ask(ben, "POST", MESSAGES, {"body": "Hello all", "team_id": None})[0] == 201
    assert ask(ben, "POST", MESSAGES, {"body": "Hello gates", "team_id": gates.pk})[0] == 403
    assert Message.objects.get(body="Hello all").is_public
    assert not Message.objects.get(body="Hello").is_public


@pytest.mark.parametrize(
    "body",
    [
        {"title": ""},
        {"title": " "},
        {"title": ["x"]},
        {"title": "x" * 121},
        {"is_public": "perhaps"},
        {"assignee_id": "x"},
        {"status": "lost"},
        {"team_id": None},
        [1],
    ],
)
def test_a_body_that_makes_no_sense_is_refused_and_changes_nothing(demo: None, body: Any) -> None:
    kept = task(KITCHEN_TASK)
    before = Task.objects.filter(pk=kept.pk).values().get()
    status, answer = ask(signed_in("ben"), "PATCH", task_url(kept), body)
    assert status == 400
    assert answer
    assert Task.objects.filter(pk=kept.pk).values().get() == before


@pytest.mark.parametrize("place", [{}, {"status": "lost"}, {"status": "done", "after": "x"}])
def test_a_move_to_nowhere_is_refused(demo: None, place: dict[str, Any]) -> None:
    url = task_url(task(KITCHEN_TASK), "move")
    assert ask(signed_in("ben"), "POST", url, place)[0] == 400


def test_a_change_of_one_column_keeps_what_others_changed(demo: None) -> None:
    Message.objects.all().delete()
    with CaptureQueriesContext(connection) as queries:
        ask(signed_in("ben"), "PATCH", task_url(task(KITCHEN_TASK)), {"title": "x"})
    (update,) = [q["sql"] for q in queries if q["sql"].startswith('UPDATE "demo_task"')]
    assert '"title"' in update and '"position"' not in update


def test_writes_need_a_session_and_a_csrf_token(demo: None) -> None:
    kept = task(KITCHEN_TASK)
    assert ask(Client(), "DELETE", task_url(kept))[0] == 401
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="ben"))
    assert client.delete(task_url(kept)).status_code == 403
    assert Task.objects.filter(pk=kept.pk).exists()
    client.get("/")
    token = client.cookies["csrftoken"].value
    assert client.delete(task_url(kept), headers={"x-csrftoken": token}).status_code == 204


def test_a_program_writes_with_a_token_and_the_log_says_who(demo: None) -> None:
    ben = User.objects.get(username="ben")
    output = io.StringIO()
    call_command("mint_token", "--sub", str(ben.pk), stdout=output)
    headers = {"authorization": f"Bearer {output.getvalue().strip()}"}
    client = Client(enforce_csrf_checks=True)
    url = task_url(task(KITCHEN_TASK))
    response = client.patch(url, '{"title": "x"}', "application/json", headers=headers)
    assert response.status_code == 200
    assert WalEntry.objects.filter(table_name="demo_task").latest("id").actor == str(ben.pk)


def test_the_browsable_api_offers_no_more_than_may_be_had(demo: None) -> None:
    html = {"accept": "text/html"}
    page = signed_in("ben").get(TASKS, headers=html).content.decode()
    assert KITCHEN_TASK in page and "Print the wristbands" not in page
    assert "elif" in page and "femi" not in page  # whom a task can be given to
    assert signed_in("ben").get("/api/", headers=html).status_code == 200
