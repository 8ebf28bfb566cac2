"""The REST door: who asks, by session, token, password or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from tests.support.note_api import MINE, note, titles
from tests.support.policies import policy, user
from tests.support.tokens import bearer, token

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.support.note_api")]

MIDDLEWARE = "auth_rls.middleware.SubjectMiddleware"


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
