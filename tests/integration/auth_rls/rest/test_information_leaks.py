"""No parameter of a list tells of columns or rows that are not shown: ordering and searching."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Count
from django.test.utils import CaptureQueriesContext
from django.urls import include, path
from rest_framework import pagination, serializers, viewsets
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient, APIRequestFactory, force_authenticate

from auth_rls.models import Policy
from auth_rls.rest import (
    PolicyFilterBackend,
    PolicyModelSerializer,
    PolicyOrderingFilter,
    PolicyPermission,
    PolicySearchFilter,
    PolicySlugRelatedField,
)
from tests.support.policies import policy, user
from tests.support.vendors import on_sqlite
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


class OwnerSerializer(serializers.ModelSerializer):
    class Meta:
        model = User
        fields = ["username"]


class NoteSerializer(serializers.ModelSerializer):
    """Shows no score and no body; of the owner the username, and never the email."""

    owner = OwnerSerializer(read_only=True)
    team_name = serializers.CharField(source="team.name", read_only=True)
    body = serializers.CharField(write_only=True)

    class Meta:
        model = Note
        fields = ["id", "title", "owner", "team", "team_name", "body"]


class Notes(viewsets.ModelViewSet):
    queryset = Note.objects.order_by("id")
    serializer_class = NoteSerializer
    permission_classes = [PolicyPermission]
    filter_backends = [PolicyFilterBackend, PolicyOrderingFilter, PolicySearchFilter]
    ordering_fields: Any = "__all__"
    search_fields = ["title", "body", "owner__username", "owner__email", "team__name"]


class ByPattern(Notes):
    """Clients write the regular expression."""

    search_fields = ["$title", "$team__name"]


class Users(Notes):
    queryset = User.objects.order_by("id")
    serializer_class = OwnerSerializer
    search_fields = ["$username"]


class Pages(pagination.CursorPagination):
    page_size = 10
    ordering = "id"


class Paged(Notes):
    pagination_class = Pages


class Named(Notes):
    ordering_fields = ["title", "score", "team__name", "owner__email", "team", "pk"]


class TeamSerializer(serializers.ModelSerializer):
    notes = serializers.IntegerField(read_only=True)
    members = serializers.SlugRelatedField(
        source="member_set", slug_field="role", many=True, read_only=True
    )

    class Meta:
        model = Team
        fields = ["id", "notes", "members"]


class CarefulTeamSerializer(PolicyModelSerializer):
    class Meta:
        model = Team
        fields = ["id", "note_set"]


class CarefulNoteSerializer(PolicyModelSerializer):
    owner = PolicySlugRelatedField(slug_field="username", queryset=User.objects.all())

    class Meta:
        model = Note
        fields = ["id", "owner"]


class Teams(viewsets.ReadOnlyModelViewSet):
    queryset = Team.objects.annotate(notes=Count("note"), secret=Count("member")).order_by("id")
    serializer_class = TeamSerializer
    filter_backends = [PolicyFilterBackend, PolicyOrderingFilter, PolicySearchFilter]
    ordering_fields = "__all__"
    search_fields = ["member__role", "name"]


class CarefulTeams(Teams):
    serializer_class = CarefulTeamSerializer


class CarefulNotes(Notes):
    serializer_class = CarefulNoteSerializer


router = SimpleRouter()
router.register("careful-teams", CarefulTeams, basename="careful-teams")
router.register("careful-notes", CarefulNotes, basename="careful-notes")
router.register("notes", Notes, basename="notes")
router.register("by-pattern", ByPattern, basename="by-pattern")
router.register("users-by-pattern", Users, basename="users-by-pattern")
router.register("paged", Paged, basename="paged")
router.register("named", Named, basename="named")
router.register("teams", Teams, basename="teams")
urlpatterns = [path("", include(router.urls))]


@pytest.fixture
def api() -> APIClient:
    """Signed in as Ada, who sees three notes, the red team and her own user."""
    ada, bob = user("ada", email="z@example.com"), user("bob", email="a@example.com")
    red, blue = Team.objects.create(name="zebra"), Team.objects.create(name="aardvark")
    fields = {"is_public": True}
    Note.objects.create(title="one", owner=ada, team=red, score=2, body="x", **fields)
    Note.objects.create(title="two", owner=bob, team=blue, score=1, body="y", **fields)
    Note.objects.create(title="three", owner=ada, team=red, score=3, body="z", **fields)
    Note.objects.create(title="hidden", owner=ada, team=red)
    policy({"is_public": True})
    policy({"name": "zebra"}, on="zoo.view_team")
    policy({"username": "ada"}, on="auth.view_user")
    client = APIClient()
    client.force_login(ada)
    return client


def titles(api: APIClient, url: str = "/notes/", **query: str) -> list[str]:
    response = api.get(url, query)
    assert response.status_code == 200
    body = response.json()
    return [row["title"] for row in (body["results"] if isinstance(body, dict) else body)]


BY_ID = ["one", "two", "three"]


def test_a_shown_column_orders(api: APIClient) -> None:
    assert titles(api, ordering="title") == ["one", "three", "two"]
    assert titles(api, ordering="-id") == ["three", "two", "one"]
    assert titles(api, "/named/", ordering="-pk") == ["three", "two", "one"]


@pytest.mark.parametrize("column", ["score", "-score", "body", "is_public", "owner", "owner_id"])
def test_a_column_that_is_not_shown_does_not_order(api: APIClient, column: str) -> None:
    assert titles(api, ordering=column) == BY_ID


@pytest.mark.parametrize("url", ["/notes/", "/named/", "/paged/"])
@pytest.mark.parametrize(
    "way", ["team__name", "-team__name", "owner__email", "owner__password", "owner__username"]
)
def test_a_related_row_does_not_order(api: APIClient, url: str, way: str) -> None:
    assert titles(api, url, ordering=way) == BY_ID


def test_a_foreign_key_orders_by_its_value_and_not_as_its_target_does(api: APIClient) -> None:
    """Ordering by a relation means, to Django, ordering as the other model is ordered."""
    Team._meta.ordering = ["name"]
    try:
        # By name the second, of "aardvark", would be the first.
        assert titles(api, "/named/", ordering="team") == ["one", "three", "two"]
        assert titles(api, "/named/", ordering="-team")[0] == "two"
    finally:
        Team._meta.ordering = []


def test_the_cursor_of_pages_keeps_to_it(api: APIClient) -> None:
    assert titles(api, "/paged/", ordering="-title") == ["two", "three", "one"]
    assert titles(api, "/paged/", ordering="score") == BY_ID


def test_an_annotation_orders_where_it_is_shown(api: APIClient) -> None:
    policy(True, on="zoo.view_team")
    red, blue = Team.objects.order_by("id")
    Member.objects.create(user=User.objects.get(username="bob"), team=red)

    def ids(**query: str) -> list[int]:
        return [row["id"] for row in api.get("/teams/", query).json()]

    assert ids(ordering="notes") == [blue.pk, red.pk]
    assert ids(ordering="-secret") == ids(ordering="secret") == [red.pk, blue.pk]
    assert ids(ordering="name") == [red.pk, blue.pk]


def test_the_choices_of_the_browsable_api_are_those_that_work(api: APIClient) -> None:
    Note.objects.filter(title="hidden").delete()
    given = PolicyOrderingFilter().get_valid_fields(
        Note.objects.all(), Notes(request=None, format_kwarg=None), {}
    )
    assert [name for name, _ in given] == ["id", "team", "title"]


def test_a_shown_column_is_searched(api: APIClient) -> None:
    assert titles(api, search="t") == ["two", "three"]
    assert titles(api, search="hid") == []
    assert titles(api, search="t,w") == ["two"]


def test_a_column_that_is_not_shown_is_not_searched(api: APIClient) -> None:
    """`body` is written and never read back."""
    assert titles(api, search="x") == titles(api, search="y") == []


def test_a_related_row_that_may_be_seen_is_searched(api: APIClient) -> None:
    assert titles(api, search="zebra") == ["one", "three"]
    assert titles(api, search="ada") == ["one", "three"]


def test_a_related_row_that_may_not_be_seen_is_not(api: APIClient) -> None:
    assert titles(api, search="aardvark") == []
    assert titles(api, search="bob") == []


def test_a_column_of_a_related_row_that_is_not_shown_is_not_searched(api: APIClient) -> None:
    assert titles(api, search="example.com") == []


def test_across_a_relation_to_many_each_row_is_found_once_and_by_what_may_be_seen(
    api: APIClient,
) -> None:
    red, blue = Team.objects.order_by("id")
    ada, bob = User.objects.order_by("id")
    policy(True, on="zoo.view_team")
    policy({"user": ada.pk}, on="zoo.view_member")
    for person in (ada, ada, bob):
        Member.objects.create(user=person, team=red, role="helper")
    Member.objects.create(user=bob, team=blue, role="helper")

    def ids(search: str) -> list[int]:
        return [row["id"] for row in api.get("/teams/", {"search": search}).json()]

    assert ids("helper") == [red.pk]
    assert ids("zebra") == []


@on_sqlite
def test_a_pattern_of_a_search_is_put_to_no_hidden_row(api: APIClient) -> None:
    """How long it takes would tell of their text. SQLite judges first what it can by the index that
    it reads in the order asked for, and so does PostgreSQL what it takes for cheap."""
    Policy.objects.filter(permission__codename="view_user").update(using={"first_name": "shown"})
    User.objects.filter(username="ada").update(first_name="shown")
    asked: list[str] = []

    def regexp(pattern: str, text: str | None) -> bool | None:
        if text is None:
            return None
        asked.append(text)
        return re.search(pattern, str(text)) is not None

    # It says what Django's own function says, and may stay.
    connection.connection.create_function("REGEXP", 2, regexp, deterministic=True)
    found = api.get("/users-by-pattern/", {"search": "^a", "ordering": "username"}).json()
    assert titles(api, "/by-pattern/", search="br") == ["one", "three"]
    assert found == [{"username": "ada"}]
    assert set(asked) == {"ada", "one", "two", "three", "zebra"}


def test_a_pattern_of_a_search_finds_what_may_be_seen(api: APIClient) -> None:
    assert titles(api, "/by-pattern/", search="^t") == ["two", "three"]
    assert titles(api, "/by-pattern/", search="z.b") == ["one", "three"]
    assert titles(api, "/by-pattern/", search="hidden|aard") == []


def test_a_search_that_may_look_at_nothing_finds_nothing(api: APIClient) -> None:
    class Nowhere(Notes):
        search_fields = ["score"]

    view = Nowhere.as_view({"get": "list"})

    request = APIRequestFactory().get("/", {"search": "2"})
    force_authenticate(request, User.objects.get(username="ada"))
    assert view(request).data == []


def test_of_a_relation_to_many_only_visible_rows_are_shown(api: APIClient) -> None:
    shown = Note.objects.filter(is_public=True, team__name="zebra").values_list("pk", flat=True)
    (team,) = api.get("/careful-teams/").json()
    assert set(team["note_set"]) == set(shown)


def test_the_slug_of_a_hidden_row_is_not_shown(api: APIClient) -> None:
    owners = [note["owner"] for note in api.get("/careful-notes/").json()]
    assert owners == ["ada", None, "ada"]


def test_policies_are_read_once_for_a_whole_list(api: APIClient) -> None:
    with CaptureQueriesContext(connection) as few:
        api.get("/careful-notes/")
    owner = User.objects.get(username="ada")
    Note.objects.bulk_create(
        Note(title=str(number), owner=owner, is_public=True) for number in range(20)
    )
    with CaptureQueriesContext(connection) as many:
        api.get("/careful-notes/")
    policies = [sum("auth_rls_policy" in q["sql"] for q in queries) for queries in (few, many)]
    assert policies[0] == policies[1]


def test_where_a_serializer_knows_no_request_nothing_can_be_pointed_to(api: APIClient) -> None:
    serializer = CarefulNoteSerializer(data={"owner": "ada"})
    assert not serializer.is_valid()
