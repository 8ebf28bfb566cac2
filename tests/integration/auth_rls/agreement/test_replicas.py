"""Read replicas: what decides is read from the primary, whatever routers say, at every door."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import call_command
from django.urls import include, path
from rest_framework import serializers, viewsets
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient

from auth_rls import PolicyDenied, Subject, check_add, check_change, visible
from auth_rls.access.authority import may_add, renew, row_predicate
from auth_rls.checks import check_stored
from auth_rls.predicates.evaluate import matcher
from auth_rls.rest import (
    PolicyFilterBackend,
    PolicyModelSerializer,
    PolicyOrderingFilter,
    PolicyPermission,
    PolicySearchFilter,
    SubjectAuthentication,
)
from auth_rls.sql.rows import row_of
from realtime import checks
from tests.support.policies import policy, user
from tests.support.tokens import bearer, token
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

OF_MEMBERS = {"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}}


class Replica:
    """Sends reads to a database that does not exist: to read there is an error."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, *objects: Any, **hints: Any) -> bool:
        return True


class Shown(PolicyModelSerializer):
    class Meta:
        model = Note
        fields = ["id", "title", "team", "score"]


class Notes(viewsets.ModelViewSet):
    queryset = Note.objects.all()
    serializer_class = Shown
    authentication_classes = [SubjectAuthentication]
    permission_classes = [PolicyPermission]
    filter_backends = [PolicyFilterBackend, PolicyOrderingFilter, PolicySearchFilter]
    search_fields = ["title"]
    ordering_fields = "__all__"


class WithTeam(Shown):
    name = serializers.CharField(source="team.name", read_only=True)

    class Meta(Shown.Meta):
        fields = ["title", "name"]


class SearchedFirst(Notes):
    queryset = Note.objects.select_related("team")
    serializer_class = WithTeam
    filter_backends = [PolicySearchFilter, PolicyFilterBackend]
    search_fields = ["team__name"]


router = SimpleRouter()
router.register("notes", Notes)
router.register("searched", SearchedFirst, basename="searched")
urlpatterns = [path("", include(router.urls))]


@pytest.fixture
def world(db: None, settings: Any) -> dict[str, Any]:
    ada = user("ada", "zoo.view_note", "zoo.add_note", "zoo.change_note")
    team = Team.objects.create(name="Stage")
    Member.objects.create(user=ada, team=team)
    shown = Note.objects.create(title="shown", team=team)
    hidden = Note.objects.create(title="hidden")
    for action in ("view", "change"):
        policy(OF_MEMBERS, on=f"zoo.{action}_note", audience="permission")
    policy(with_check=OF_MEMBERS, on="zoo.add_note", audience="permission")
    policy(True, on="zoo.view_team")
    settings.DATABASE_ROUTERS = [Replica()]
    return {"ada": ada, "team": team, "shown": shown, "hidden": hidden}


def test_querysets_objects_and_the_stream_decide_by_the_primary(world: dict[str, Any]) -> None:
    ada, shown, hidden = world["ada"], world["shown"], world["hidden"]
    assert list(visible(Note.objects.all(), ada)) == [shown]
    assert ada.has_perm("zoo.view_note", shown) and not ada.has_perm("zoo.view_note", hidden)
    match = matcher(row_predicate(Subject.from_user(ada), Note))
    assert (match(row_of(shown)), match(row_of(hidden))) == (True, None)


def test_subjects_are_read_from_the_primary(world: dict[str, Any]) -> None:
    subject = Subject.from_token(token(world["ada"].pk))
    assert subject.user == world["ada"]
    assert renew(subject) == subject


def test_writes_are_judged_by_the_primary(world: dict[str, Any]) -> None:
    ada, team = world["ada"], world["team"]
    check_add(Note(title="x", team=team), ada)
    check_change(world["shown"], ada)
    assert may_add(Subject.from_user(ada), Note(title="x", team=team))
    with pytest.raises(PolicyDenied):
        check_change(world["hidden"], ada)


def test_rest_decides_by_the_primary(world: dict[str, Any]) -> None:
    client = APIClient(headers=bearer(token(world["ada"].pk)))
    found = client.get("/notes/?search=h&ordering=-title").json()
    assert [row["title"] for row in found] == ["shown"]
    one, other = (f"/notes/{world[name].pk}/" for name in ("shown", "hidden"))
    assert client.get(one).status_code == 200 and client.get(other).status_code == 404
    assert client.patch(one, {"score": 2}).status_code == 200
    assert client.patch(other, {"score": 2}).status_code == 404
    assert client.post("/notes/", {"title": "n", "team": world["team"].pk}).status_code == 201
    assert client.post("/notes/", {"title": "n"}).status_code == 403


def test_a_search_is_made_on_the_primary_wherever_it_stands_among_the_filters(
    world: dict[str, Any],
) -> None:
    client = APIClient(headers=bearer(token(world["ada"].pk)))
    found = client.get("/searched/?search=stage").json()
    assert [row["title"] for row in found] == ["shown"]
    assert client.get("/searched/?search=another").json() == []


def test_explanations_and_checks_read_the_primary(world: dict[str, Any]) -> None:
    out = io.StringIO()
    asked = ("--user", "ada", "--permission", "zoo.view_note", "--pk", str(world["shown"].pk))
    call_command("explain_rls", *asked, stdout=out)
    assert out.getvalue().count("allowed") == 5
    assert check_stored(databases=["default"]) == []


def test_accounts_in_another_database_than_the_log_are_an_error(settings: Any) -> None:
    assert checks.check_deciding_databases() == []

    class Elsewhere(Replica):
        def db_for_write(self, model: Any, **hints: Any) -> str:
            return "accounts" if model._meta.app_label == "auth" else "default"

    settings.DATABASE_ROUTERS = [Elsewhere()]
    found = checks.check_deciding_databases()
    assert {message.id for message in found} == {"realtime.E020"}
    assert len(found) == 3
