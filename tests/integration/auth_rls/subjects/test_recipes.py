"""The recipes of docs/how-to/tokens.md, each with tokens of its provider's shape."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.contrib.auth.models import User
from django.core.checks import run_checks

from auth_rls import Subject
from auth_rls.subjects.tokens import TokenError

pytestmark = pytest.mark.django_db

PAGE = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "tokens.md"


def recipes() -> dict[str, dict[str, Any]]:
    """Name -> AUTH_RLS, as the page has them. A section about pages alone has no settings."""
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        if not blocks:
            continue
        (code,) = blocks
        names: dict[str, Any] = {}
        exec(code, names)
        found[section.partition("\n")[0]] = names["AUTH_RLS"]
    return found


RECIPES = recipes()
KEYS: Mapping[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
}


@dataclass(frozen=True)
class Shape:
    """A provider's token for Ada, and changes of its claims: to what is another role, to what is
    another user or none, and to what is to be refused."""

    claims: Mapping[str, Any]
    user: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[tuple[Mapping[str, Any], str], ...] = ()
    nobody: tuple[Mapping[str, Any], ...] = ()
    refused: tuple[Mapping[str, Any], ...] = ()


PK = object()

SHAPES = {
    "djangorestframework-simplejwt": Shape(
        claims={"token_type": "access", "jti": "06a1", "user_id": PK},
        nobody=({"user_id": None}, {"user_id": "999999"}),
        refused=(
            {"token_type": "refresh"},
            {"token_type": "sliding"},
            {"token_type": None},
            {"user_id": True},
        ),
    ),
    "allauth headless": Shape(
        claims={"sid": "b64==", "jti": "3f2a", "token_use": "access", "sub": PK},
        refused=({"token_use": "refresh"}, {"token_use": None}),
    ),
    "Auth0": Shape(
        claims={
            "iss": "https://example.eu.auth0.com/",
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": ["https://api.example.com", "https://example.eu.auth0.com/userinfo"],
            "azp": "my_client_id",
            "scope": "openid profile",
        },
        user={"username": "auth0|5f7c8ec7c33c6c004bbafe82"},
        nobody=({"sub": "auth0|other"}, {"sub": PK}),
        refused=(
            {"aud": "my_client_id"},  # an ID token
            {"aud": "https://another-api.example.com"},
            {"iss": "https://evil.eu.auth0.com/"},
            {"role": "service_role"},
        ),
    ),
    "Keycloak": Shape(
        claims={
            "iss": "https://id.example.com/realms/main",
            "aud": ["rowcast", "account"],
            "sub": "f3c1a6f0-5a0b-4f6e-9d0a-0f1f6c7f2c11",
            "typ": "Bearer",
            "azp": "web",
            "realm_access": {"roles": ["offline_access", "uma_authorization"]},
            "preferred_username": "ada",
            "email_verified": False,
        },
        user={"username": "ada"},
        roles=(
            ({"realm_access": {"roles": ["x", "rowcast-guest"]}}, "anon"),
            ({"realm_access": {"roles": ["service_role"]}}, "authenticated"),
            ({"realm_access": None}, "authenticated"),
        ),
        nobody=({"preferred_username": "eve"}, {"preferred_username": PK}),
        refused=(
            {"typ": "Refresh"},
            {"typ": "Offline"},
            {"typ": "ID"},
            {"typ": "Logout"},
            {"aud": "account"},
            {"iss": "https://id.example.com/realms/other"},
        ),
    ),
    "Clerk": Shape(
        claims={
            "azp": "https://app.example.com",
            "iss": "https://example.clerk.accounts.dev",
            "sid": "sess_2xyz",
            "sub": "user_2abc",
            "v": 2,
        },
        user={"username": "user_2abc"},
        nobody=({"sub": "user_other"},),
        refused=({"azp": "https://evil.example.com"}, {"azp": None}, {"iss": "https://clerk.dev"}),
    ),
    "Cognito": Shape(
        claims={
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_abc",
            "client_id": "4f1c9b2e",
            "token_use": "access",
            "scope": "openid",
            "username": "ada",
            "cognito:groups": ["admins"],
        },
        user={"username": "ada"},
        roles=(({"cognito:groups": ["admins", "guests"]}, "anon"),),
        nobody=({"username": "eve"},),
        refused=(
            {"token_use": "id"},
            {"client_id": "another"},
            {"iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_other"},
        ),
    ),
    "Firebase": Shape(
        claims={
            "iss": "https://securetoken.google.com/my-project",
            "aud": "my-project",
            "user_id": "Xk2",
            "sub": "Xk2",
            "email": "ada@example.com",
            "email_verified": True,
            "firebase": {"sign_in_provider": "password"},
        },
        user={"email": "ada@example.com"},
        nobody=({"email": "eve@example.com"}, {"email": "ADA@example.com"}),
        refused=(
            {"email_verified": False},
            {"email_verified": "true"},
            {"email_verified": None},
            {"aud": "another-project"},
            {"iss": "https://securetoken.google.com/another-project"},
        ),
    ),
    "Supabase Auth": Shape(
        claims={
            "iss": "https://example.supabase.co/auth/v1",
            "aud": "authenticated",
            "sub": "8ccaa7af-909f-44e7-84cb-67cdccb56be6",
            "role": "authenticated",
            "aal": "aal1",
            "app_metadata": {"provider": "email"},
        },
        user={"username": "8ccaa7af-909f-44e7-84cb-67cdccb56be6"},
        roles=(({"role": "anon", "sub": None}, "anon"),),
        nobody=({"sub": "11111111-909f-44e7-84cb-67cdccb56be6"},),
        refused=({"role": "service_role"}, {"aud": "other"}, {"role": "postgres"}),
    ),
}


def test_every_recipe_is_tried() -> None:
    assert set(RECIPES) == set(SHAPES)


@pytest.fixture(params=RECIPES)
def shape(request: Any, settings: Any) -> Shape:
    recipe = dict(RECIPES[request.param])
    if recipe.pop("JWKS_URL", None):
        (algorithm,) = recipe["JWT_ALGORITHMS"]
        public = KEYS[algorithm].public_key()
        jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
        recipe["JWKS"] = {"keys": [{**jwk, "kid": "k"}]}
    settings.AUTH_RLS = recipe
    return SHAPES[request.param]


@pytest.fixture
def ada(shape: Shape) -> User:
    return User.objects.create_superuser(**{"username": "ada", **shape.user})


def subject(settings: Any, ada: User, *changes: Mapping[str, Any]) -> Subject:
    claims: dict[str, Any] = {"iat": int(time.time()), "exp": int(time.time()) + 300}
    for change in changes:
        claims |= change
    given = {
        name: str(ada.pk) if value is PK else value
        for name, value in claims.items()
        if value is not None
    }
    algorithm = settings.AUTH_RLS.get("JWT_ALGORITHMS", ["HS256"])[0]
    key = KEYS.get(algorithm, settings.SECRET_KEY)
    return Subject.from_token(jwt.encode(given, key, algorithm, headers={"kid": "k"}))


def test_its_token_is_the_user(settings: Any, shape: Shape, ada: User) -> None:
    found = subject(settings, ada, shape.claims)
    assert (found.user, found.role) == (ada, "authenticated")
    # A superuser's rank counts by our own signature alone.
    assert found.bypasses_rls is ("JWKS" not in settings.AUTH_RLS)


def test_its_roles_are_ours(settings: Any, shape: Shape, ada: User) -> None:
    for change, role in shape.roles:
        assert subject(settings, ada, shape.claims, change).role == role


def test_a_token_of_somebody_else_is_no_user(settings: Any, shape: Shape, ada: User) -> None:
    for change in shape.nobody:
        found = subject(settings, ada, shape.claims, change)
        assert found.user is None and found.user_id != ada.pk and found.user_id != str(ada.pk)


def test_its_other_tokens_are_refused(settings: Any, shape: Shape, ada: User) -> None:
    assert shape.refused
    for change in (*shape.refused, {"exp": int(time.time()) - 1}):
        with pytest.raises(TokenError):
            subject(settings, ada, shape.claims, change)


def test_no_check_warns_of_it(settings: Any, shape: Shape) -> None:
    found = {message.id for message in run_checks()}
    # Addresses are not unique in Django's own user model.
    allowed = {"auth_rls.W007"} if settings.AUTH_RLS.get("USER_FIELD") == "email" else set()
    assert {each for each in found if each.startswith("auth_rls.")} <= {"auth_rls.W001", *allowed}
