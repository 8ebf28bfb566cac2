"""`explain_rls` says why a row is shown or not, and every door's own answer."""

from __future__ import annotations

import io
import json
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.management import CommandError, call_command
from django.db.models import Q

from auth_rls import Subject, declare_policy
from auth_rls.explain import doors, questions
from auth_rls.explain.askers import asker
from auth_rls.explain.questions import Answer, answer, question
from auth_rls.policy.declared import DECLARED
from auth_rls.subjects import tokens
from realtime.wal import published
from tests.support.policies import drop_the_score, policy, user
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.django_db

MINE = {"owner": "$user.id"}


def run(*arguments: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    out = io.StringIO()
    try:
        call_command("explain_rls", *arguments, stdout=out, no_color=True)
    except SystemExit as stop:
        return int(str(stop.code)), out.getvalue()
    return 0, out.getvalue()


def refusal(*arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        call_command("explain_rls", *arguments)
    text = str(caught.value)
    assert caught.value.returncode == 2 and "\n" not in text
    return text


def explained(note: Note, permission: str = "zoo.view_note", **who: Any) -> Answer:
    asking = asker(**who)
    return answer(asking, question(asking, permission, str(note.pk)))


def answers(found: Answer) -> dict[str, bool | None]:
    return {door.door: door.allowed for door in found.doors}


def test_an_allowed_row_exits_with_0_and_names_what_decided() -> None:
    ada = user("ada", "zoo.view_note")
    note = Note.objects.create(title="Soup", owner=ada)
    policy(MINE, name="Own notes", audience="permission")
    policy({"is_public": True}, name="Public notes")
    code, text = run("--user", "ada", "--permission", "zoo.view_note", "--pk", str(note.pk))
    assert code == 0
    first, because, *_ = text.splitlines()
    assert first == f"ada (user {ada.pk}), zoo.view_note on zoo.Note {note.pk} “Soup”: allowed"
    assert because == "“Own notes” lets the row through."
    assert "  > Own notes: true" in text and "    Public notes: false" in text
    assert f"owner_id is {ada.pk}; $user.id is {ada.pk}" in text
    assert "is_public is false" in text


def test_a_denied_row_exits_with_1_and_every_door_denies() -> None:
    user("ada", "zoo.view_note")
    note = Note.objects.create(title="Soup")
    policy(MINE, audience="permission")
    code, text = run("--user", "ada", "--permission", "zoo.view_note", "--pk", str(note.pk))
    assert code == 1
    assert "owner_id is null; $user.id is" in text and "unknown" in text
    for door in ("stream", "queryset", "has_perm", "REST"):
        assert any(line.split() == [door, "denied"] for line in text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--permission", "zoo.view_note", "--pk", "1"], "--user: Say who asks"),
        (["--user", "eve", "--permission", "zoo.view_note", "--pk", "1"], "primary key 'eve'"),
        (["--user", "ada", "--pk", "1"], "--permission: Say what for"),
        (["--user", "ada", "--permission", "view_note", "--pk", "1"], '"app.codename"'),
        (["--user", "ada", "--permission", "zoo.view_nope", "--pk", "1"], "no model"),
        (["--user", "ada", "--permission", "zoo.see_note", "--pk", "1"], "no permission on rows"),
        (["--user", "ada", "--permission", "zoo.view_note"], "--pk: Say which row"),
        (["--user", "ada", "--permission", "zoo.view_note", "--pk", "no"], "primary key 'no'"),
        (["--user", "ada", "--permission", "zoo.view_note", "--pk", "9" * 40], "There is no row"),
        (["--role", "king", "--permission", "zoo.view_note", "--pk", "1"], "--role: The role is"),
        (["--claims", "{", "--permission", "zoo.view_note", "--pk", "1"], "not JSON"),
        (["--claims", "[]", "--permission", "zoo.view_note", "--pk", "1"], "a JSON object"),
        (
            ["--claims", '{"role": "x"}', "--permission", "zoo.view_note", "--pk", "1"],
            "role must be one of",
        ),
        (["--token", "x", "--permission", "zoo.view_note", "--pk", "1"], "The token is refused"),
        (["--token", "x", "--user", "ada", "--permission", "p", "--pk", "1"], "nothing beside it"),
    ],
)
def test_a_question_that_cannot_be_asked_exits_with_2_and_one_line(
    arguments: list[str], reason: str
) -> None:
    user("ada")
    assert reason in refusal(*arguments)


def test_claims_that_contradict_the_user_are_refused() -> None:
    ada = user("ada")
    note = Note.objects.create(title="x")
    where = ("--permission", "zoo.view_note", "--pk", str(note.pk), "--user", "ada")
    assert "another user" in refusal(*where, "--claims", json.dumps({"sub": str(ada.pk + 1)}))
    assert "another role" in refusal(
        *where, "--role", "anon", "--claims", '{"role": "authenticated"}'
    )


def test_json_holds_the_tree_and_the_doors() -> None:
    ada = user("ada")
    team = Team.objects.create(name="Stage")
    Member.objects.create(user=ada, team=team)
    note = Note.objects.create(title="Soup", team=team)
    mine = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
    policy({"all": [{"team__in": mine}, {"is_public": False}]})
    code, text = run(
        "--user", str(ada.pk), "--permission", "zoo.view_note", "--pk", str(note.pk), "--json"
    )
    found = json.loads(text)
    assert (code, found["allowed"], found["agree"], found["row"]) == (0, True, True, "Soup")
    tree = found["explanation"]["policies"][0]["clause"]
    assert (tree["kind"], tree["verdict"]) == ("all", True)
    compared = tree["parts"][0]["comparison"]
    assert (compared["found"], compared["size"], compared["contains"]) == (str(team.pk), 1, True)
    doors_asked = {door["door"]: door["allowed"] for door in found["doors"]}
    assert {doors_asked[name] for name in ("stream", "queryset", "has_perm", "REST")} == {True}


def test_why_other_policies_do_not_apply_is_said() -> None:
    user("ada")
    note = Note.objects.create(title="x")
    policy(True, name="off", enabled=False)
    policy(True, name="holders", audience="permission")
    policy({"nope": 1}, name="broken")
    policy(True, name="about teams", on="zoo.view_team")
    with patch.dict(DECLARED, clear=True):
        declare_policy("in code", "zoo.view_note", audience="anyone", using=Q(is_public=True))
        found = explained(note, user="ada").explanation
    assert {report.name: str(report.standing) for report in found.policies} == {
        "off": "disabled",
        "holders": "permission not held",
        "broken": "broken",
        "in code": "applies",
    }
    broken = next(report for report in found.policies if report.name == "broken")
    assert broken.reason.startswith("using: nope: unknown column 'nope' of zoo.Note")
    assert not found.allowed


def test_claims_stand_for_a_subject_as_a_token_with_them_would() -> None:
    note = Note.objects.create(title="x", score=7)
    policy({"score": "$claims.n"})
    assert explained(note, claims={"n": 7}).allowed
    assert not explained(note, claims={"n": 8}).allowed
    ada = user("ada", "zoo.view_note")
    policy(MINE, audience="permission")
    note = Note.objects.create(title="y", owner=ada)
    assert explained(note, claims={"sub": str(ada.pk)}).allowed
    assert explained(note, user="ada", claims={"n": 1}).allowed
    # A token of role anon holds nothing of its user's.
    assert not explained(note, user="ada", role="anon").allowed


def test_a_token_is_asked_as_the_server_would_ask_it() -> None:
    ada = user("ada", "zoo.view_note")
    note = Note.objects.create(title="y", owner=ada)
    policy(MINE, audience="permission")
    token = tokens.sign({"sub": str(ada.pk), "role": "authenticated", "exp": 2**40})
    found = explained(note, token=token)
    assert found.allowed and answers(found)["has_perm"] is None
    assert (
        token
        not in run(
            "--token", token, "--permission", "zoo.view_note", "--pk", str(note.pk), "--json"
        )[1]
    )


@pytest.mark.parametrize("says", [True, False])
def test_a_user_model_that_decides_has_perm_by_itself_is_no_disagreement(says: bool) -> None:
    class Person:
        is_authenticated = True

        def has_perm(self, permission: str, obj: Any = None) -> bool:
            return says

    note = Note.objects.create(title="x")
    asked = doors.Question(Subject.anonymous(), Person(), "view", note)
    (found,) = (verdict for verdict in doors.ask_all(asked) if verdict.door == "has_perm")
    assert found.allowed is None
    assert "own has_perm" in found.note


def test_who_bypasses_is_told_that_no_policy_was_asked() -> None:
    user("root", is_superuser=True)
    note = Note.objects.create(title="x")
    policy(False, mode="restrictive")
    for found in (explained(note, user="root"), explained(note, role="service_role")):
        assert found.allowed and "bypasses row-level security" in found.explanation.because
    assert answers(explained(note, user="root"))["has_perm"] is True


def test_an_inactive_user_is_refused_by_every_door() -> None:
    user("ada", is_active=False)
    note = Note.objects.create(title="x", is_public=True)
    policy(True)
    found = explained(note, user="ada")
    assert not found.allowed and "inactive" in found.explanation.because
    asked = answers(found)
    assert {asked[name] for name in ("stream", "queryset", "has_perm", "REST")} == {False}
    assert found.agree


def test_nobody_is_asked_about_as_the_anonymous_visitor() -> None:
    policy({"is_public": True})
    shown = Note.objects.create(title="a", is_public=True)
    hidden = Note.objects.create(title="b")
    assert explained(shown, role="anon").allowed
    assert not explained(hidden, role="anon").allowed
    assert answers(explained(shown, role="anon"))["has_perm"] is True


def test_changes_deletions_and_additions_are_explained_too() -> None:
    ada = user("ada")
    note = Note.objects.create(title="x", owner=ada)
    policy(MINE, on="zoo.change_note", with_check={"is_public": True})
    policy({"is_public": True}, on="zoo.delete_note")
    policy(on="zoo.add_note", with_check=MINE)
    change = explained(note, "zoo.change_note", user="ada")
    assert change.allowed and change.agree
    check = change.explanation.policies[0].check
    assert check is not None and check.verdict is False
    delete = explained(note, "zoo.delete_note", user="ada")
    assert not delete.allowed and answers(delete)["queryset"] is False
    add = explained(note, "zoo.add_note", user="ada")
    assert add.allowed and answers(add)["queryset"] is None and answers(add)["has_perm"] is True
    assert answers(add)["stream"] is None


def test_rest_touches_no_row_that_it_would_not_show() -> None:
    user("ada")
    note = Note.objects.create(title="x")
    policy(True, on="zoo.change_note")
    policy(False, on="zoo.delete_note")
    found = explained(note, "zoo.change_note", user="ada")
    assert found.allowed and answers(found)["REST"] is None
    policy(True)
    assert answers(explained(note, "zoo.change_note", user="ada"))["REST"] is True
    delete = explained(note, "zoo.delete_note", user="ada")
    assert answers(delete)["REST"] is False and delete.agree
    assert answers(explained(note, "zoo.add_note", user="ada"))["REST"] is None


def test_rest_is_asked_with_the_claims_of_a_token() -> None:
    note = Note.objects.create(title="x", score=7)
    policy({"score": "$claims.n"})
    assert answers(explained(note, claims={"n": 7}))["REST"] is True
    assert answers(explained(note, claims={"n": 8}))["REST"] is False
    assert answers(explained(note, role="service_role"))["REST"] is True


def test_without_rest_framework_its_door_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "find_spec", lambda name: None)
    note = Note.objects.create(title="x")
    (rest,) = [door for door in explained(note, role="anon").doors if door.door == "REST"]
    assert (rest.allowed, rest.note) == (None, "Django REST framework is not installed")


def test_the_stream_matches_the_image_that_would_be_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy({"price__lte": "12.50", "created__lt": "2030-01-01", "ref__isnull": True})
    note = Note.objects.create(title="ä", price="12.5", created="2025-01-01T00:00:00Z")
    assert answers(explained(note, role="anon"))["stream"] is True
    monkeypatch.setattr(published, "declarations", {})
    assert answers(explained(note, role="anon"))["stream"] is None


def test_a_door_that_disagrees_is_shown_and_the_doubt_denies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(doors.DOORS, "side door", lambda question: False)
    policy(True)
    note = Note.objects.create(title="x")
    code, text = run("--role", "anon", "--permission", "zoo.view_note", "--pk", str(note.pk))
    assert code == 1
    assert "The doors do not agree" in text
    assert text.splitlines()[-1].split() == ["side", "door", "denied"]


def test_the_subject_of_an_anonymous_visitor_is_that_of_djangos() -> None:
    assert asker(role="anon").subject == Subject.from_user(AnonymousUser())


def test_permissions_on_topics_are_explained_by_the_topics_name() -> None:
    ada = user("ada", "realtime.receive_broadcast")
    team = Team.objects.create(name="Stage")
    Member.objects.create(user=ada, team=team)
    rooms = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
    policy(
        {"topic__in": {**rooms, "prefix": "room:"}},
        on="realtime.receive_broadcast",
        audience="permission",
        name="Rooms of teams",
    )
    asked = ("--user", "ada", "--permission", "realtime.receive_broadcast", "--topic")
    code, text = run(*asked, f"room:{team.pk}")
    assert code == 0
    assert f"topic is “room:{team.pk}”; it is among the 1 value" in text
    assert {"stream allowed", "has_perm allowed"} <= {
        " ".join(line.split()) for line in text.splitlines()
    }
    assert run(*asked, "room:0")[0] == 1
    other = ("--user", "ada", "--permission", "realtime.send_broadcast", "--topic", "room:1")
    code, text = run(*other)
    assert code == 1 and "There is no policy on realtime.send_broadcast" in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["realtime.view_presence", "--pk", "x"], "--pk: realtime.view_presence takes --topic"),
        (["realtime.view_presence"], "--topic: Say which topic"),
        (["realtime.view_presence", "--topic", "x" * 256], "--topic: Ensure this value has at"),
        (["zoo.view_note", "--topic", "x"], "--topic: zoo.view_note takes --pk instead."),
        (["realtime.view_topic", "--topic", "x"], "--permission: realtime.view_topic is no perm"),
    ],
)
def test_topics_and_rows_are_not_taken_for_each_other(arguments: list[str], reason: str) -> None:
    assert reason in refusal("--role", "anon", "--permission", *arguments)


def test_a_policy_that_the_database_cannot_evaluate_is_broken_and_doors_fail() -> None:
    note = Note.objects.create(title="x")
    policy({"score": 1}, name="old")
    policy({"title": "x"}, name="fine")
    drop_the_score()
    with pytest.MonkeyPatch.context() as patch:
        # The row itself can still be read.
        fields = [f for f in Note._meta.local_concrete_fields if f.name != "score"]
        patch.setattr(questions, "stored_row", lambda model, pk: _without_score(note, fields))
        code, text = run("--role", "anon", "--permission", "zoo.view_note", "--pk", str(note.pk))
    assert code == 1
    assert "old: broken" in text and "using: the database cannot evaluate it" in text
    assert "A door fails" in text
    assert any(line.split()[:3] == ["queryset", "denied:", "it"] for line in text.splitlines())


def test_a_database_that_cannot_tell_is_said_in_a_line() -> None:
    note = Note.objects.create(title="x")
    drop_the_score()
    reason = refusal("--role", "anon", "--permission", "zoo.view_note", "--pk", str(note.pk))
    assert reason.startswith("The database cannot tell: ") and "score" in reason


def _without_score(note: Note, fields: list[Any]) -> Note:
    return Note(**{field.attname: getattr(note, field.attname) for field in fields})
