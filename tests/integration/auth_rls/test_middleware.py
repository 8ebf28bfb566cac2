"""`request.subject` in sync and async views: from the session, from a token, or a 401."""

from __future__ import annotations

import json

import pytest
from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.http import require_POST

from auth_rls import Subject, visible
from auth_rls.middleware import SubjectMiddleware, accepts_tokens, authenticates_itself
from tests.support.policies import policy, user
from tests.support.tokens import bearer, token
from tests.zoo.models import Note

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


def told(request: HttpRequest) -> JsonResponse:
    subject = request.subject
    return JsonResponse(
        {
            "role": subject.role,
            "id": subject.user_id,
            "user": request.user.username,
            "seen": [note.title for note in visible(Note.objects.all(), request)],
        }
    )


async def told_async(request: HttpRequest) -> JsonResponse:
    subject = await request.asubject()
    user = await request.auser()
    return JsonResponse({"role": subject.role, "id": subject.user_id, "user": user.username})


@authenticates_itself
def own_keys(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"shown": request.headers["authorization"], "user": request.user.username})


@method_decorator(accepts_tokens, name="dispatch")
class Told(View):
    def post(self, request: HttpRequest) -> JsonResponse:
        return told(request)


pages = ([path("page", accepts_tokens(told))], "admin")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("admin-like/", include(pages)),
    path("page", login_required(told, login_url="/login")),
    path("own", own_keys),
    path("both", accepts_tokens(told)),
    path("both-async", accepts_tokens(told_async)),
    path("both-class", Told.as_view()),
    path("both-logged-in", login_required(accepts_tokens(told), login_url="/login")),
    path("both-inside", accepts_tokens(login_required(told, login_url="/login"))),
    path("sync", told),
    path("async", told_async),
    path("post", require_POST(told)),
]


def test_a_session_is_its_user() -> None:
    ada = user()
    client = Client()
    client.force_login(ada)
    assert client.get("/sync").json() == {
        "role": "authenticated",
        "id": ada.pk,
        "user": "ada",
        "seen": [],
    }


def test_nobody_is_anonymous() -> None:
    answer = Client().get("/sync").json()
    assert (answer["role"], answer["id"], answer["user"]) == ("anon", None, "")


def test_a_token_is_its_subject_and_no_user_whatever_session_came_along() -> None:
    ada, bob = user("ada"), user("bob")
    policy({"owner": "$user.id"})
    Note.objects.create(title="ada's", owner=ada)
    Note.objects.create(title="bob's", owner=bob)
    client = Client()
    client.force_login(bob)
    answer = client.get("/sync", headers=bearer(token(ada.pk))).json()
    assert (answer["id"], answer["user"], answer["seen"]) == (ada.pk, "", ["ada's"])


def test_a_token_of_nobody_we_know_is_no_session_user_either() -> None:
    client = Client()
    client.force_login(user())
    answer = client.get("/sync", headers=bearer(token("elsewhere-7"))).json()
    assert (answer["role"], answer["id"], answer["user"]) == ("authenticated", "elsewhere-7", "")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("Bearer nonsense", "The token provided is not a valid JWT"),
        ("Bearer", "The token provided is not a valid JWT"),
        ("bearer a b", "The token provided is not a valid JWT"),
        (f"Bearer {token(ttl=-60)}", "Token has expired"),
    ],
)
def test_a_token_that_is_refused_is_a_401_and_not_nobody(value: str, why: str) -> None:
    client = Client()
    client.force_login(user())
    response = client.get("/sync", headers={"authorization": value})
    assert response.status_code == 401
    assert why in response.json()["error"]
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_a_token_of_an_inactive_user_is_refused() -> None:
    gone = user("gone", is_active=False)
    assert Client().get("/sync", headers=bearer(token(gone.pk))).status_code == 401


def test_a_view_with_keys_of_its_own_gets_them_in_a_request_of_nobodys() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user())
    key = {"authorization": "Bearer sb_secret_x"}
    assert client.get("/own", headers=key).json() == {"shown": "Bearer sb_secret_x", "user": ""}
    assert client.post("/own", headers=key).status_code == 403
    assert client.get("/nowhere", headers=key).status_code == 401


def test_a_view_with_keys_of_its_own_is_asked_also_while_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own answer says what is wrong, and no page of Django's."""

    def away(token: str) -> Subject:
        raise OperationalError("connection refused")

    monkeypatch.setattr(Subject, "from_token", away)
    key = {"authorization": "Bearer a.b.c"}
    assert Client().get("/own", headers=key).json() == {"shown": "Bearer a.b.c", "user": ""}
    with pytest.raises(OperationalError):
        Client().get("/sync", headers=key)


def test_another_scheme_is_not_ours_to_judge() -> None:
    client = Client()
    client.force_login(user())
    answer = client.get("/sync", headers={"authorization": "Basic YTpi"}).json()
    assert answer["user"] == "ada"


def root() -> User:
    return User.objects.create_superuser("root", password="x")


def test_a_token_opens_no_view_that_was_written_for_sessions() -> None:
    value = bearer(token(root().pk))
    for path_ in ("/page", "/admin/auth/user/", "/admin/"):
        assert Client().get(path_, headers=value).status_code == 302


def test_a_token_opens_no_admin_beside_the_session_of_somebody_who_may_not_enter() -> None:
    client = Client()
    client.force_login(user("bob"))
    assert client.get("/admin/auth/user/", headers=bearer(token(root().pk))).status_code == 302


def test_a_token_writes_nothing_in_the_admin_even_without_csrf_checks() -> None:
    value = bearer(token(root().pk))
    form = {"username": "backdoor", "usable_password": "false"}
    assert Client().post("/admin/auth/user/add/", form, headers=value).status_code == 302
    strict = Client(enforce_csrf_checks=True)
    assert strict.post("/admin/auth/user/add/", form, headers=value).status_code == 403
    assert not User.objects.filter(username="backdoor").exists()


def test_a_token_replaces_no_csrf_token() -> None:
    ada = user()
    client = Client(enforce_csrf_checks=True)
    assert client.post("/post", headers=bearer(token(ada.pk))).status_code == 403
    client.force_login(ada)
    assert client.post("/post").status_code == 403
    assert client.post("/post", headers=bearer(token(ada.pk))).status_code == 403
    assert client.post("/post", headers={"authorization": "Basic YTpi"}).status_code == 403


@pytest.mark.parametrize("where", ["/both", "/both-class", "/both-async", "/both-inside"])
def test_a_view_that_accepts_tokens_gets_their_user_without_a_csrf_token(where: str) -> None:
    ada, bob = user("ada"), user("bob")
    client = Client(enforce_csrf_checks=True)
    client.force_login(bob)
    answer = client.post(where, headers=bearer(token(ada.pk))).json()
    assert (answer["id"], answer["user"]) == (ada.pk, "ada")


@pytest.mark.parametrize("where", ["/both", "/both-class", "/both-async", "/both-inside"])
def test_a_view_that_accepts_tokens_still_asks_sessions_for_a_csrf_token(where: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user())
    assert client.post(where).status_code == 403
    assert client.post(where, headers={"authorization": "Basic YTpi"}).status_code == 403
    assert Client().post(where, headers=bearer("x")).status_code == 401


def test_what_stands_before_a_view_that_accepts_tokens_sees_nobody() -> None:
    value = bearer(token(user().pk))
    assert Client().get("/both-logged-in", headers=value).status_code == 302


def test_no_view_of_an_admin_accepts_tokens() -> None:
    answer = Client().get("/admin-like/page", headers=bearer(token(root().pk))).json()
    assert answer["user"] == ""


def test_caches_are_told_that_the_answer_depends_on_the_token() -> None:
    assert "Authorization" in Client().get("/sync", headers=bearer(token()))["Vary"]
    assert "Authorization" in Client().get("/sync", headers=bearer("x"))["Vary"]


def test_the_session_is_not_read_where_nobody_asks() -> None:
    request = RequestFactory().get("/")

    class Untouched:
        @property
        def is_authenticated(self) -> bool:
            raise AssertionError("the user was read")

    request.user = Untouched()
    SubjectMiddleware(lambda request: JsonResponse({}))(request)


def test_in_the_wrong_place_it_says_where_it_belongs() -> None:
    with pytest.raises(ImproperlyConfigured, match="behind"):
        SubjectMiddleware(lambda request: JsonResponse({}))(RequestFactory().get("/"))


@pytest.mark.django_db(transaction=True)
async def test_async_views_get_the_same_subject() -> None:
    ada = await sync_to_async(user)("ada")
    client = AsyncClient()
    await client.aforce_login(ada)
    assert json.loads((await client.get("/async")).content)["id"] == ada.pk
    other = await User.objects.acreate(username="bob")
    answer = await client.get("/async", headers=bearer(token(other.pk)))
    assert json.loads(answer.content) == {
        "role": "authenticated",
        "id": other.pk,
        "user": "",
    }
    answer = await client.post("/both-async", headers=bearer(token(other.pk)))
    assert json.loads(answer.content)["user"] == "bob"
    assert (await client.get("/async", headers=bearer("x"))).status_code == 401
    assert json.loads((await client.get("/sync")).content)["user"] == "ada"
