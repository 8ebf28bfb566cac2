"""The REST door: what a view shows, and what it saves, under the policies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404
from django.urls import include, path
from rest_framework import generics, serializers, viewsets
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.decorators import action, api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient, APIRequestFactory
from rest_framework.views import APIView

from auth_rls.models import Policy
from auth_rls.rest import (
    PolicyFilterBackend,
    PolicyModelSerializer,
    PolicyPermission,
    SubjectAuthentication,
)
from tests.support.policies import policy, user
from tests.support.tokens import bearer, token
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

ROOT = Path(__file__).resolve().parents[4]
MINE = {"owner": "$user.id"}
MIDDLEWARE = "auth_rls.middleware.SubjectMiddleware"
MY_TEAMS = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}


class NoteSerializer(serializers.ModelSerializer):
    class Meta:
        model = Note
        fields = ["id", "title", "owner", "team", "is_public", "score"]


class Guarded:
    queryset = Note.objects.order_by("id")
    serializer_class = NoteSerializer
    filter_backends = [PolicyFilterBackend]
    permission_classes = [PolicyPermission]


class Notes(Guarded, viewsets.ModelViewSet):
    @action(detail=True, methods=["post"])
    def publish(self, request: Any, pk: str) -> Response:
        note = self.get_object()
        note.is_public = True
        note.save()
        return Response(NoteSerializer(note).data)

    @action(detail=False, methods=["delete"])
    def clear(self, request: Any) -> Response:
        self.filter_queryset(self.get_queryset()).delete()
        return Response(status=204)

    @action(detail=False, methods=["post"])
    def many(self, request: Any) -> Response:
        serializer = self.get_serializer(data=request.data, many=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=201)


class Owned(Notes):
    def perform_create(self, serializer: Any) -> None:
        serializer.save(owner=self.request.user)


class Bare(Notes):
    """Without the filter backend: the permission alone decides about objects."""

    filter_backends: list[Any] = []


class Narrowed(Notes):
    """Without the permission: the filter backend alone."""

    permission_classes: list[Any] = []


class Both(Notes):
    permission_classes = [IsAuthenticated & PolicyPermission]


class BulkList(serializers.ListSerializer):
    """What REST framework's documentation proposes for speed: no `save()`, so no signal."""

    def create(self, validated_data: Any) -> Any:
        return Note.objects.bulk_create([Note(**values) for values in validated_data])

    def update(self, instance: Any, validated_data: Any) -> Any:
        notes = []
        for note, values in zip(instance, validated_data, strict=True):
            for name, value in values.items():
                setattr(note, name, value)
            notes.append(note)
        Note.objects.bulk_update(notes, ["title", "owner"])
        return notes


class BulkSerializer(NoteSerializer):
    class Meta(NoteSerializer.Meta):
        list_serializer_class = BulkList


class Bulk(Notes):
    serializer_class = BulkSerializer

    @action(detail=False, methods=["put"])
    def all(self, request: Any) -> Response:
        notes = list(Note.objects.order_by("id"))
        serializer = self.get_serializer(notes, data=request.data, many=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data)


class PutAsCreate(Notes):
    def update(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        try:
            return super().update(request, *args, **kwargs)
        except Http404:
            serializer = self.get_serializer(data=request.data)
            serializer.is_valid(raise_exception=True)
            serializer.save(pk=kwargs["pk"])
            return Response(serializer.data, status=201)


class Put(Notes):
    """An update that writes past `save()`."""

    class serializer_class(NoteSerializer):
        def update(self, instance: Any, validated_data: Any) -> Any:
            Note.objects.filter(pk=instance.pk).update(**validated_data)
            instance.refresh_from_db()
            return instance


class TeamSerializer(serializers.ModelSerializer):
    class Meta:
        model = Team
        fields = ["id", "name"]


class WithTeam(Notes):
    class serializer_class(NoteSerializer):
        team = TeamSerializer()

        def create(self, validated_data: Any) -> Any:
            team = Team.objects.create(**validated_data.pop("team"))
            return Note.objects.create(team=team, **validated_data)


class Careful(Notes):
    class serializer_class(PolicyModelSerializer):
        class Meta(NoteSerializer.Meta):
            pass


class ByHand(APIView):
    queryset = Note.objects.all()
    permission_classes = [PolicyPermission]

    def post(self, request: Any) -> Response:
        serializer = NoteSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=201)


class Blind(APIView):
    permission_classes = [PolicyPermission]

    def get(self, request: Any) -> Response:
        return Response("shown to anybody")


class Asynchronous(ByHand):
    async def post(self, request: Any) -> Response:  # type: ignore[override]
        return Response("never")


@api_view(["GET"])
@permission_classes([PolicyPermission])
def blind_function(request: Any) -> Response:
    return Response("shown to anybody")


class ByToken(Guarded, generics.ListCreateAPIView):
    authentication_classes = [SubjectAuthentication, SessionAuthentication]


class ByPassword(Guarded, generics.ListCreateAPIView):
    """A view that takes no session."""

    authentication_classes = [BasicAuthentication]


router = SimpleRouter()
for name, viewset in {
    "notes": Notes,
    "owned": Owned,
    "bare": Bare,
    "narrowed": Narrowed,
    "both": Both,
    "bulk": Bulk,
    "put-as-create": PutAsCreate,
    "put": Put,
    "with-team": WithTeam,
    "careful": Careful,
}.items():
    router.register(name, viewset, basename=name)
urlpatterns = [
    path("", include(router.urls)),
    path("by-hand/", ByHand.as_view()),
    path("blind/", Blind.as_view()),
    path("blind-function/", blind_function),
    path("by-token/", ByToken.as_view()),
    path("by-password/", ByPassword.as_view()),
]


@pytest.fixture
def ada() -> User:
    return user("ada")


@pytest.fixture
def bob() -> User:
    return user("bob")


@pytest.fixture
def api(ada: User) -> APIClient:
    """Signed in as Ada."""
    client = APIClient()
    client.force_login(ada)
    return client


def titles(response: Any) -> list[str]:
    assert response.status_code == 200
    return [row["title"] for row in response.json()]


def note(title: str, owner: User | None = None, **fields: Any) -> Note:
    return Note.objects.create(title=title, owner=owner, **fields)


def stored() -> set[str]:
    return set(Note.objects.values_list("title", flat=True))


# Reading


def test_a_list_holds_what_may_be_seen(api: APIClient, ada: User, bob: User) -> None:
    policy(MINE)
    note("ada's", ada), note("bob's", bob)
    assert titles(api.get("/notes/")) == ["ada's"]
    assert titles(APIClient().get("/notes/")) == []


def test_without_a_policy_nothing_is_shown_and_nothing_can_be_done(
    api: APIClient, ada: User
) -> None:
    kept = note("ada's", ada)
    assert titles(api.get("/notes/")) == []
    assert api.get(f"/notes/{kept.pk}/").status_code == 404
    assert api.post("/notes/", {"title": "x"}).status_code == 403
    assert api.delete(f"/notes/{kept.pk}/").status_code == 404
    assert stored() == {"ada's"}


@pytest.mark.parametrize("route", ["notes", "bare", "both"])
def test_what_cannot_be_seen_is_not_found_and_what_can_only_be_seen_is_refused(
    api: APIClient, ada: User, bob: User, route: str
) -> None:
    policy({"is_public": True})
    policy(MINE, on="zoo.change_note")
    policy(MINE, on="zoo.delete_note")
    hidden, shown = note("hidden", ada), note("shown", bob, is_public=True)
    for method, body in (("get", None), ("patch", {"title": "x"}), ("put", {"title": "x"})):
        ask = getattr(api, method)
        assert ask(f"/{route}/{hidden.pk}/", body).status_code == 404
        assert ask(f"/{route}/{shown.pk}/", body).status_code == (200 if method == "get" else 403)
    assert api.delete(f"/{route}/{hidden.pk}/").status_code == 404
    refused = api.delete(f"/{route}/{shown.pk}/")
    assert refused.status_code == 403
    if route != "both":  # REST framework asks no part of an & for its words
        words = "No policy lets you delete this note (zoo.delete_note)."
        assert refused.json() == {"detail": words}
    assert stored() == {"hidden", "shown"}


def test_an_action_on_an_object_is_a_change_of_it(api: APIClient, ada: User, bob: User) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    mine, theirs = note("mine", ada), note("theirs", bob)
    assert api.post(f"/notes/{mine.pk}/publish/").status_code == 200
    assert api.post(f"/notes/{theirs.pk}/publish/").status_code == 403
    assert not Note.objects.get(pk=theirs.pk).is_public


def test_a_list_that_is_to_be_deleted_holds_what_may_be_deleted(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.delete_note")
    note("mine", ada), note("theirs", bob)
    assert api.delete("/notes/clear/").status_code == 204
    assert stored() == {"theirs"}


def test_the_filter_alone_finds_only_what_may_be_written_to(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    mine, theirs = note("mine", ada), note("theirs", bob)
    assert api.get(f"/narrowed/{theirs.pk}/").status_code == 200
    assert api.patch(f"/narrowed/{theirs.pk}/", {"title": "x"}).status_code == 404
    assert api.patch(f"/narrowed/{mine.pk}/", {"title": "x"}).status_code == 200
    assert api.delete(f"/narrowed/{mine.pk}/").status_code == 404


# Adding


def test_a_new_row_is_judged_before_it_is_saved(api: APIClient, ada: User, bob: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    assert api.post("/notes/", {"title": "mine", "owner": ada.pk}).status_code == 201
    refused = api.post("/notes/", {"title": "theirs", "owner": bob.pk})
    assert refused.status_code == 403
    assert refused.json() == {"detail": "No policy lets you add this note (zoo.add_note)."}
    assert api.post("/notes/", {"title": "nobody's"}).status_code == 403
    assert stored() == {"mine"}


def test_what_the_view_adds_to_a_row_counts(api: APIClient, ada: User, bob: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    assert api.post("/owned/", {"title": "mine", "owner": bob.pk}).status_code == 201
    assert Note.objects.get().owner == ada


def test_who_may_add_nothing_is_told_before_the_body_is_looked_at(api: APIClient) -> None:
    policy(True)
    assert api.post("/notes/", {}).status_code == 403
    policy(True, on="zoo.add_note")
    assert api.post("/notes/", {}).status_code == 400


def test_nobody_is_asked_to_sign_in_rather_than_refused(ada: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE, audience="authenticated")
    assert APIClient().post("/by-password/", {"title": "x"}).status_code == 401


@pytest.mark.parametrize("route", ["notes", "bulk"])
def test_of_many_new_rows_all_are_added_or_none(
    api: APIClient, ada: User, bob: User, route: str
) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    mine = [{"title": f"{number}", "owner": ada.pk} for number in range(3)]
    refused = api.post(f"/{route}/many/", [*mine, {"title": "x", "owner": bob.pk}], "json")
    assert refused.status_code == 403
    assert stored() == set()
    assert api.post(f"/{route}/many/", mine, "json").status_code == 201
    assert stored() == {"0", "1", "2"}


def test_a_put_that_creates_is_an_add(api: APIClient, ada: User, bob: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    policy(MINE, on="zoo.change_note")
    hidden = note("hidden", bob)
    url = "/put-as-create/{}/".format
    body = {"title": "new", "owner": ada.pk}
    assert api.put(url(hidden.pk + 1), {**body, "owner": bob.pk}).status_code == 403
    assert api.put(url(hidden.pk + 1), body).status_code == 201
    # It is not seen, so it looks as if it were not there; it must not be overwritten for that.
    assert api.put(url(hidden.pk), body).status_code == 403
    assert stored() == {"hidden", "new"}


def test_a_view_that_saves_by_hand_is_guarded_too(api: APIClient, ada: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    assert api.post("/by-hand/", {"title": "x"}).status_code == 403
    assert api.post("/by-hand/", {"title": "x", "owner": ada.pk}).status_code == 201


def test_nested_rows_are_judged_by_their_own_policies(api: APIClient, ada: User) -> None:
    policy(True, on="zoo.add_note")
    body = {"title": "x", "team": {"name": "red"}}
    assert api.post("/with-team/", body, "json").status_code == 403
    assert not Team.objects.exists()
    policy({"name": "red"}, on="zoo.add_team")
    assert api.post("/with-team/", body, "json").status_code == 201
    assert api.post("/with-team/", {**body, "team": {"name": "blue"}}, "json").status_code == 403
    assert list(Team.objects.values_list("name", flat=True)) == ["red"]


def test_a_foreign_key_is_judged_as_a_value_of_the_row(api: APIClient, ada: User) -> None:
    policy({"team__in": MY_TEAMS}, on="zoo.add_note")
    red, blue = Team.objects.create(name="red"), Team.objects.create(name="blue")
    Member.objects.create(user=ada, team=red)
    assert api.post("/notes/", {"title": "x", "team": red.pk}).status_code == 201
    assert api.post("/notes/", {"title": "y", "team": blue.pk}).status_code == 403


def test_a_hidden_row_can_be_pointed_to_no_more_than_one_that_is_not_there(
    api: APIClient, ada: User
) -> None:
    policy(True, on="zoo.add_note")
    policy({"name": "red"}, on="zoo.view_team")
    red, blue = Team.objects.create(name="red"), Team.objects.create(name="blue")
    hidden = api.post("/careful/", {"title": "x", "team": blue.pk})
    missing = api.post("/careful/", {"title": "x", "team": 10**6})
    assert hidden.status_code == missing.status_code == 400
    assert hidden.json()["team"][0].replace(str(blue.pk), "?") == missing.json()["team"][0].replace(
        str(10**6), "?"
    )
    assert api.post("/careful/", {"title": "x", "team": red.pk}).status_code == 201


def test_the_forms_of_the_browsable_api_offer_no_hidden_row(api: APIClient, ada: User) -> None:
    policy(True)
    policy(True, on="zoo.add_note")
    policy({"name": "red team"}, on="zoo.view_team")
    Team.objects.create(name="red team"), Team.objects.create(name="blue team")
    page = api.get("/careful/", headers={"accept": "text/html"}).content.decode()
    assert "red team" in page and "blue team" not in page


# Changing


def test_a_patch_cannot_carry_a_row_to_where_it_could_not_be_changed(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    mine = note("mine", ada)
    assert api.patch(f"/notes/{mine.pk}/", {"score": 5}).status_code == 200
    refused = api.patch(f"/notes/{mine.pk}/", {"owner": bob.pk})
    assert refused.status_code == 403
    assert refused.json() == {
        "detail": "No policy lets you change the note to that (zoo.change_note)."
    }
    assert api.put(f"/notes/{mine.pk}/", {"title": "x", "owner": bob.pk}).status_code == 403
    mine.refresh_from_db()
    assert (mine.owner, mine.title, mine.score) == (ada, "mine", 5)


def test_a_check_of_its_own_lets_rows_be_given_away(api: APIClient, ada: User, bob: User) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note", with_check={"is_public": False})
    mine = note("mine", ada)
    assert api.patch(f"/notes/{mine.pk}/", {"is_public": True}, "json").status_code == 403
    assert api.patch(f"/notes/{mine.pk}/", {"owner": bob.pk}, "json").status_code == 200


def test_a_change_that_passes_by_save_is_judged_before_it_is_committed(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    mine = note("mine", ada)
    assert api.patch(f"/put/{mine.pk}/", {"title": "still mine"}).status_code == 200
    assert api.patch(f"/put/{mine.pk}/", {"owner": bob.pk}).status_code == 403
    mine.refresh_from_db()
    assert mine.owner == ada


def test_changes_in_bulk_are_judged_by_old_and_new_rows(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    note("one", ada), note("two", ada)
    body = [{"title": "1", "owner": ada.pk}, {"title": "2", "owner": ada.pk}]
    assert api.put("/bulk/all/", body, "json").status_code == 200
    given = [body[0], {"title": "2", "owner": bob.pk}]
    assert api.put("/bulk/all/", given, "json").status_code == 403
    Note.objects.filter(title="2").update(owner=bob)
    taken = [{"title": "x", "owner": ada.pk}, {"title": "y", "owner": ada.pk}]
    assert api.put("/bulk/all/", taken, "json").status_code == 403
    assert list(Note.objects.order_by("id").values_list("title", "owner")) == [
        ("1", ada.pk),
        ("2", bob.pk),
    ]


def test_outside_of_a_view_nothing_is_guarded(api: APIClient, ada: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    assert api.post("/notes/", {"title": "x"}).status_code == 403
    note("saved by the application itself")


# Who asks


def by_token(sub: Any, role: str = "authenticated") -> dict[str, str]:
    return bearer(token(sub, role, team="red"))


@pytest.mark.parametrize("middleware", [True, False])
def test_a_token_is_its_user_and_its_claims(
    api: APIClient, settings: Any, ada: User, bob: User, middleware: bool
) -> None:
    if not middleware:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIDDLEWARE]
    policy({"all": [MINE, {"title": "$claims.team"}]})
    note("red", bob), note("blue", bob), note("red", ada)
    answer = api.get("/by-token/", headers=by_token(bob.pk))
    assert [row["owner"] for row in answer.json()] == [bob.pk]


def test_a_token_needs_no_csrf_token_and_a_session_does(ada: User) -> None:
    policy(True, on="zoo.add_note")
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(ada)
    assert client.post("/by-token/", {"title": "x"}).status_code == 403
    assert client.post("/by-token/", {"title": "x"}, headers=by_token(ada.pk)).status_code == 201


@pytest.mark.parametrize("middleware", [True, False])
def test_a_token_that_is_refused_is_a_401(api: APIClient, settings: Any, middleware: bool) -> None:
    if not middleware:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIDDLEWARE]
    answer = api.get("/by-token/", headers={"authorization": "Bearer nonsense"})
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")


def test_with_the_middleware_a_token_keeps_its_claims_in_any_view(ada: User) -> None:
    policy({"title": "$claims.team"})
    note("red"), note("blue")
    assert titles(APIClient().get("/notes/", headers=by_token(ada.pk))) == ["red"]
    assert titles(APIClient().get("/notes/", headers=by_token("elsewhere-7"))) == ["red"]


def test_a_view_that_takes_no_session_is_not_answered_for_it(api: APIClient, ada: User) -> None:
    policy(MINE)
    note("mine", ada)
    assert titles(api.get("/notes/")) == ["mine"]
    assert titles(api.get("/by-password/")) == []


def test_the_service_role_and_superusers_are_not_asked(bob: User) -> None:
    note("bob's", bob)
    assert titles(APIClient().get("/by-token/", headers=by_token("x", "service_role"))) == ["bob's"]
    root = APIClient()
    root.force_login(user("root", is_superuser=True))
    assert titles(root.get("/notes/")) == ["bob's"]
    assert root.post("/notes/", {"title": "x"}).status_code == 201


# Mistakes


@pytest.mark.parametrize("url", ["/blind/", "/blind-function/"])
def test_a_view_without_a_queryset_is_not_open(api: APIClient, url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="no queryset"):
        api.get(url)


def test_an_async_handler_that_could_not_be_guarded_is_not_run(ada: User) -> None:
    """REST framework has none of its own; extensions of it do."""
    request = Request(APIRequestFactory().post("/"))
    request.user = ada
    with pytest.raises(ImproperlyConfigured, match="acheck_add"):
        PolicyPermission().has_permission(request, Asynchronous())


def test_a_policy_that_is_switched_off_takes_its_rights_with_it(api: APIClient, ada: User) -> None:
    policy(MINE)
    policy(MINE, on="zoo.change_note")
    mine = note("mine", ada)
    assert api.patch(f"/notes/{mine.pk}/", {"title": "x"}).status_code == 200
    Policy.objects.filter(permission__codename="change_note").update(enabled=False)
    assert api.patch(f"/notes/{mine.pk}/", {"title": "y"}).status_code == 403


def test_without_rest_framework_everything_else_works() -> None:
    script = """
import sys
sys.modules["rest_framework"] = None
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=[
        "auth_rls", "realtime", "django.contrib.admin", "django.contrib.auth",
        "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages",
    ],
)
django.setup()
import auth_rls, auth_rls.managers, auth_rls.middleware, realtime.middleware
auth_rls.check_add, auth_rls.visible
try:
    import auth_rls.rest
except ImportError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == (
        "auth_rls.rest needs Django REST framework, which is not installed: "
        'pip install "django-rowcast[drf]"'
    )
