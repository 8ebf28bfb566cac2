"""Subjects: whom a token, a user or nobody stands for."""

from __future__ import annotations

import base64
import copy
import dataclasses
import time
import uuid
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import models

from auth_rls import Subject
from auth_rls.subjects import tokens
from auth_rls.subjects.subject import Claims
from auth_rls.subjects.user_lookup import field_value
from tests.support.tokens import token

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada")


def test_a_token_of_a_user_stands_for_that_user(settings: Any, ada: User) -> None:
    expires = int(time.time()) + 600
    subject = Subject.from_token(token(sub=str(ada.pk), exp=expires, team=["a"]))
    assert (subject.role, subject.user, subject.user_id) == ("authenticated", ada, ada.pk)
    assert subject.claims["team"] == ("a",)
    assert subject.expires_at == expires
    assert not subject.bypasses_rls


def test_a_subject_lasts_as_long_as_its_token_is_accepted(settings: Any) -> None:
    settings.AUTH_RLS = {"JWT_LEEWAY": 30}
    just_past = int(time.time()) - 1
    assert Subject.from_token(token(exp=just_past)).expires_at == just_past + 30


def test_a_number_as_sub_is_the_same_user(settings: Any, ada: User) -> None:
    assert Subject.from_token(token(None, sub=ada.pk)).user == ada


@pytest.mark.parametrize(
    "sub",
    [
        "999999",
        "no-number",
        "-1",
        "1.0",
        " 1",
        "0x1",
        "9" * 40,
        "123e4567-e89b-12d3-a456-426614174000",
        "Ünïcode",
        "' OR 1=1 --",
        "1_0",
        "١",
    ],
)
def test_a_sub_without_a_django_user_is_a_subject_all_the_same(settings: Any, sub: str) -> None:
    User.objects.create_user("one", id=1)
    User.objects.create_user("ten", id=10)
    subject = Subject.from_token(token(sub=sub))
    assert (subject.role, subject.user, subject.user_id) == ("authenticated", None, sub)
    assert not subject.bypasses_rls


@pytest.mark.parametrize("claims", [{}, {"sub": None}, {"sub": ""}])
def test_a_token_may_name_nobody(settings: Any, claims: dict[str, Any]) -> None:
    subject = Subject.from_token(token(**claims))
    assert (subject.user, subject.user_id) == (None, None)


@pytest.mark.parametrize("sub", [True, 1.5, ["1"], {"id": 1}])
def test_a_sub_that_is_no_name_is_refused(settings: Any, sub: Any) -> None:
    with pytest.raises(tokens.InvalidToken, match="`sub` must be a string or an integer"):
        Subject.from_token(token(sub=sub))


@pytest.mark.parametrize("role", ["authenticated", "anon", "service_role"])
def test_an_inactive_user_is_refused_whatever_the_role(settings: Any, ada: User, role: str) -> None:
    User.objects.update(is_active=False, is_superuser=True)
    with pytest.raises(tokens.TokenError) as caught:
        Subject.from_token(token(sub=str(ada.pk), role=role))
    assert str(caught.value) == "InvalidJWTToken: The user of this token is inactive"


def test_a_user_whom_the_default_manager_hides_counts_as_inactive(
    settings: Any, ada: User, monkeypatch: Any
) -> None:
    hiding = models.Manager.from_queryset(models.QuerySet)()
    hiding.model = User
    monkeypatch.setattr(hiding, "get_queryset", lambda: models.QuerySet(User).none())
    monkeypatch.setitem(User._meta.__dict__, "default_manager", hiding)
    with pytest.raises(tokens.InvalidToken, match="inactive"):
        Subject.from_token(token(sub=str(ada.pk)))


def test_service_role_bypasses(settings: Any) -> None:
    assert Subject.from_token(token(role="service_role")).bypasses_rls
    assert Subject.service().bypasses_rls


def test_a_superuser_bypasses_unless_the_role_steps_down(settings: Any, ada: User) -> None:
    User.objects.update(is_superuser=True)
    ada.refresh_from_db()
    assert Subject.from_token(token(sub=str(ada.pk))).bypasses_rls
    assert Subject.from_user(ada).bypasses_rls
    stepped_down = Subject.from_token(token(sub=str(ada.pk), role="anon"))
    assert not stepped_down.bypasses_rls
    assert (stepped_down.user, stepped_down.user_id) == (None, ada.pk)


def test_a_bad_token_is_refused(settings: Any) -> None:
    for text in ("garbage", token(role="admin"), token(exp=1)):
        with pytest.raises(tokens.TokenError):
            Subject.from_token(text)


def test_claims_nested_too_deep_are_refused(settings: Any) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(tokens.MalformedToken):
        Subject.from_token(token(deep=deep))


def test_the_user_id_claim_can_have_another_name(settings: Any, ada: User) -> None:
    settings.AUTH_RLS = {"USER_ID_CLAIM": "user_id", "ROLE_CLAIM": "rank"}
    given = {"rank": "authenticated", "user_id": ada.pk, "sub": "x", "exp": time.time() + 60}
    subject = Subject.from_token(jwt.encode(given, settings.SECRET_KEY, "HS256"))
    assert subject.user == ada
    assert Subject.from_user(ada).claims == {"rank": "authenticated", "user_id": str(ada.pk)}


def test_of_several_user_id_claims_the_first_that_names_somebody_counts(
    settings: Any, ada: User
) -> None:
    settings.AUTH_RLS = {"USER_ID_CLAIM": ["app.user", "uid", "sub"]}
    bob = User.objects.create_user("bob")
    for claims in (
        {"app": {"user": ada.pk}, "uid": str(bob.pk)},
        {"app": {"user": None}, "uid": str(ada.pk), "sub": "x"},
        {"app": "x", "uid": "", "sub": str(ada.pk)},
    ):
        assert Subject.from_token(token(**claims)).user == ada
    unknown = Subject.from_token(token(uid="nobody", sub=str(ada.pk)))
    assert (unknown.user, unknown.user_id) == (None, "nobody")
    assert Subject.from_user(ada).claims["app"] == {"user": str(ada.pk)}


def test_a_token_may_name_its_user_by_another_field(settings: Any, ada: User) -> None:
    settings.AUTH_RLS = {"USER_ID_CLAIM": "email", "USER_FIELD": "email"}
    User.objects.update(email="ada@example.com")
    ada.refresh_from_db()
    assert Subject.from_token(token(email="ada@example.com")).user == ada
    assert Subject.from_user(ada).claims["email"] == "ada@example.com"
    for other in ("ADA@example.com", "ada@example.com ", "ada@example", str(ada.pk), "", None):
        assert Subject.from_token(token(email=other)).user is None


def test_a_name_that_is_no_users_never_passes_for_the_key_of_one(settings: Any, ada: User) -> None:
    settings.AUTH_RLS = {"USER_ID_CLAIM": "username", "USER_FIELD": "username"}
    assert Subject.from_token(token(username="ada")).user == ada
    for named in (str(ada.pk), "999999", "7"):
        subject = Subject.from_token(token(username=named))
        assert (subject.user, subject.user_id) == (None, None)
    assert Subject.from_token(token(username="auth0|7")).user_id == "auth0|7"


def test_a_name_that_two_users_have_is_refused(settings: Any, ada: User) -> None:
    settings.AUTH_RLS = {"USER_ID_CLAIM": "email", "USER_FIELD": "email"}
    User.objects.create_user("ada2", is_active=False)
    User.objects.update(email="ada@example.com")
    with pytest.raises(tokens.InvalidToken, match="not unique"):
        Subject.from_token(token(email="ada@example.com"))


def test_an_inactive_user_is_refused_by_whatever_field_it_is_named(
    settings: Any, ada: User
) -> None:
    settings.AUTH_RLS = {"USER_ID_CLAIM": "username", "USER_FIELD": "username"}
    User.objects.update(is_active=False)
    with pytest.raises(tokens.InvalidToken, match="inactive"):
        Subject.from_token(token(username="ada"))


FOREIGN_SECRET = "the-secret-of-another-issuer-is-long-enough"
FOREIGN = {
    "JWKS": {
        "keys": [
            {
                "kty": "oct",
                "kid": "theirs",
                "k": base64.urlsafe_b64encode(FOREIGN_SECRET.encode()).rstrip(b"=").decode(),
            }
        ]
    }
}


def foreign(**claims: Any) -> str:
    given = {"exp": int(time.time()) + 600, "role": "authenticated", **claims}
    return jwt.encode(given, FOREIGN_SECRET, "HS256", headers={"kid": "theirs"})


def test_the_numbers_of_another_issuer_are_no_users_unless_a_setting_says_so(
    settings: Any, ada: User
) -> None:
    User.objects.update(is_superuser=True)
    settings.AUTH_RLS = FOREIGN
    subject = Subject.from_token(foreign(sub=str(ada.pk)))
    assert (subject.user, subject.user_id, subject.bypasses_rls) == (None, None, False)
    assert Subject.from_token(foreign(sub="auth0|7")).user_id == "auth0|7"
    assert Subject.from_token(token(ada.pk)).user == ada
    for explicit in ({"USER_FIELD": "pk"}, {"USER_ID_CLAIM": "sub"}):
        settings.AUTH_RLS = {**FOREIGN, **explicit}
        assert Subject.from_token(foreign(sub=str(ada.pk))).user == ada


def test_a_superuser_bypasses_by_a_foreign_token_only_where_a_setting_says_so(
    settings: Any, ada: User
) -> None:
    User.objects.update(is_superuser=True)
    mapped = {**FOREIGN, "USER_FIELD": "pk"}
    for accepted, theirs, ours in (("own", False, True), ("any", True, True), ("never", 0, 0)):
        settings.AUTH_RLS = {**mapped, "SERVICE_ROLE_TOKENS": accepted}
        assert Subject.from_token(foreign(sub=str(ada.pk))).bypasses_rls == bool(theirs)
        assert Subject.from_token(token(ada.pk)).bypasses_rls == bool(ours)
    subject = Subject.from_token(foreign(sub=str(ada.pk)))
    assert not dataclasses.replace(subject, user=ada).bypasses_rls


def test_a_user_is_a_subject_without_a_query(ada: User, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        subject = Subject.from_user(ada)
    assert (subject.role, subject.user_id, subject.expires_at) == ("authenticated", ada.pk, None)
    assert subject.claims == {"sub": str(ada.pk), "role": "authenticated"}


def test_nobody_the_inactive_and_the_unsaved_are_anonymous() -> None:
    for user in (None, AnonymousUser(), User(pk=1, is_active=False, is_superuser=True), User()):
        subject = Subject.from_user(user)
        assert subject == Subject.anonymous()
        assert (subject.role, subject.user_id, subject.user) == ("anon", None, None)
        assert not subject.bypasses_rls


def test_a_token_costs_one_query(settings: Any, ada: User, django_assert_num_queries: Any) -> None:
    text = token(sub=str(ada.pk))
    with django_assert_num_queries(1):
        Subject.from_token(text)


def test_subjects_compare_by_value_and_not_by_user_object(settings: Any, ada: User) -> None:
    text = token(sub=str(ada.pk), nested={"b": [1, {"c": 2}], "a": None})
    one, two = Subject.from_token(text), Subject.from_token(text)
    assert one == two and hash(one) == hash(two) and one.user is not two.user
    assert one != Subject.from_user(ada)


def test_a_subject_changes_when_its_rank_does(ada: User) -> None:
    before = Subject.from_user(ada)
    ada.is_superuser = True
    assert not before.bypasses_rls
    after = dataclasses.replace(before, user=ada)
    assert after.bypasses_rls and after != before


def test_a_subject_cannot_be_changed(settings: Any) -> None:
    subject = Subject.from_token(token(nested={"list": [{"a": 1}]}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        subject.role = "service_role"  # type: ignore[misc]
    for claims in (subject.claims, subject.claims["nested"], subject.claims["nested"]["list"][0]):
        with pytest.raises(TypeError):
            claims["a"] = 2
    with pytest.raises(TypeError):
        subject.claims["nested"]["list"][0] = 2


def test_a_subject_must_have_a_role_there_is() -> None:
    with pytest.raises(ValueError, match="role must be one of"):
        Subject(role="admin")


def test_claims_equal_only_where_their_json_is() -> None:
    assert Claims({"a": 1, "b": [2]}) == Claims({"b": [2], "a": 1}) == {"a": 1, "b": (2,)}
    for other in ({"a": True}, {"a": 1.0}, {"a": "1"}, {"a": None}, {}, {"a": [1]}):
        assert Claims({"a": 1}) != Claims(other)
    assert Claims({"a": 1}) != 1
    assert hash(Claims({"a": {"b": 1}})) == hash(Claims({"a": {"b": 1}}))
    assert copy.deepcopy(Claims({"a": [{"b": 1}]})) == {"a": [{"b": 1}]}


def test_only_the_canonical_text_names_a_value() -> None:
    key = uuid.uuid4()
    by_uuid = models.UUIDField(primary_key=True)
    assert field_value(by_uuid, str(key)) == key
    assert field_value(by_uuid, str(key).upper()) == key
    assert field_value(by_uuid, "7") is None
    by_text = models.CharField(primary_key=True, max_length=5)
    assert field_value(by_text, "ada") == "ada"
    assert field_value(by_text, "longer") is None
    assert field_value(by_text, "a\0") is None
    assert field_value(User._meta.pk, "7") == 7
    assert field_value(User._meta.pk, "07") is None
