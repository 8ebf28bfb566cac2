"""What `export_rls` installs decides as the policies do."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError
from django.db.utils import ProgrammingError

from tests.support.exports import asking, export, of, seen
from tests.support.policies import permission, policy, user
from tests.support.vendors import on_postgresql
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("alone")]


@on_postgresql
def test_claims_that_name_nobody_see_nothing() -> None:
    policy(True)
    Note.objects.create(title="a")
    export("--apply")
    user("gone", pk=9, is_active=False, is_superuser=True)
    assert seen({"role": "anon"}) == {"a"}
    for claims in (
        "",
        {},
        [],
        "null",
        {"role": "postgres"},
        {"role": ["anon"]},
        {"role": "service_role ", "n": 1},
        {"role": "authenticated", "sub": "9"},
        {"role": "anon", "sub": 9},
        {"role": "service_role", "sub": 9},
        {"role": "service_role", "sub": 9.0},
    ):
        assert seen(claims) == set(), claims
    with pytest.raises(Exception, match="invalid input syntax for type json"):
        seen("{")


@on_postgresql
def test_claims_without_a_role_have_the_default_role(settings: Any) -> None:
    policy(True, audience="authenticated")
    Note.objects.create(title="a")
    export("--apply")
    assert seen({"sub": "x"}) == seen({"sub": "x", "role": None}) == {"a"}
    settings.AUTH_RLS = {"DEFAULT_ROLE": None}
    export("--apply")
    assert seen({"sub": "x"}) == seen({"sub": "x", "role": None}) == set()


@on_postgresql
def test_claims_that_another_issuer_may_have_signed_bypass_nothing_and_are_no_user(
    settings: Any,
) -> None:
    root = user("root", is_superuser=True)
    policy({"owner": "$user.id"}, audience="authenticated")
    Note.objects.create(title="root's", owner=root)
    Note.objects.create(title="b")
    keys = {"keys": [{"kty": "oct", "kid": "k", "k": "c2VjcmV0" * 8}]}
    asked = {"role": "authenticated", "sub": str(root.pk)}
    settings.AUTH_RLS = {"JWKS": keys}
    export("--apply")
    assert seen({"role": "service_role"}) == seen(asked) == set()
    settings.AUTH_RLS = {"JWKS": keys, "USER_FIELD": "pk"}
    export("--apply")
    assert seen({"role": "service_role"}) == set()
    assert seen(asked) == {"root's"}
    settings.AUTH_RLS = {"JWKS": keys, "USER_FIELD": "pk", "SERVICE_ROLE_TOKENS": "any"}
    export("--apply")
    assert seen({"role": "service_role"}) == seen(asked) == {"root's", "b"}


@pytest.mark.parametrize(
    "keys",
    [
        {"USER_ID_CLAIM": ["uid", "sub"]},
        {"USER_ID_CLAIM": "app.user"},
        {"USER_FIELD": "email"},
        {"ROLE_CLAIM": "app.role"},
        {"ROLE_MAP": {"boss": "service_role"}},
        {"REQUIRED_CLAIMS": {"aal": "aal2"}},
    ],
    ids=lambda keys: next(iter(keys)),
)
@on_postgresql
def test_claims_that_sql_would_read_otherwise_are_not_exported(settings: Any, keys: Any) -> None:
    policy(True)
    settings.AUTH_RLS = keys
    with pytest.raises(CommandError, match=next(iter(keys))):
        export()


@on_postgresql
def test_a_select_reads_tables_that_the_asker_may_not() -> None:
    ada, ben = user("ada"), user("ben")
    team = Team.objects.create(name="t")
    Member.objects.create(user=ada, team=team)
    Note.objects.create(title="ours", team=team)
    policy({"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}})
    policy(False, on="zoo.view_member")
    export("--apply")
    assert seen(of(ada)) == {"ours"}
    assert seen(of(ben)) == set()
    with asking(of(ada)) as run, pytest.raises(ProgrammingError, match="permission denied"):
        run("SELECT * FROM zoo_member")


@on_postgresql
def test_a_policy_that_reads_its_own_table_does_not_go_in_circles() -> None:
    ada = user()
    Note.objects.create(title="mine", owner=ada, score=1)
    Note.objects.create(title="same score", score=1)
    Note.objects.create(title="other", score=2)
    policy({"score__in": {"select": "score", "from": "zoo.Note", "where": {"owner": "$user.id"}}})
    export("--apply")
    assert seen(of(ada)) == {"mine", "same score"}


@on_postgresql
def test_a_permission_s_holder_is_decided_when_the_query_runs() -> None:
    ada = user()
    policy(True, audience="permission")
    Note.objects.create(title="a")
    export("--apply")
    assert seen(of(ada)) == set()
    ada.user_permissions.add(permission("zoo.view_note"))
    assert seen(of(ada)) == {"a"}
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert seen(of(ada)) == set()
