"""Ready-made shapes are ordinary policies: every door answers by them alike."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models import Q
from django.test.utils import isolate_apps

from auth_rls.explain.askers import asker
from auth_rls.explain.questions import answer, question
from auth_rls.models import Policy
from auth_rls.policy.declared import declared_policies
from auth_rls.policy.policy_set import PolicySet, ShapeError
from auth_rls.shapes import membership, ownership, public_read, tenant
from tests.support.policies import policy, user
from tests.zoo.models import Member, Note, Specimen, Team

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nothing_declared")]

ALL = [f"zoo.{action}_note" for action in ("view", "add", "change", "delete")]


@pytest.fixture(params=["declared", "created"])
def in_force(request: pytest.FixtureRequest) -> Callable[[PolicySet], None]:
    """Puts a shape in force, in either way."""

    def put(shape: PolicySet) -> None:
        if request.param == "declared":
            shape.declare()
        else:
            assert [made.problem() for made in shape.create()] == [None] * len(shape.definitions)

    return put


def allowed(row: models.Model, permission: str, **who: Any) -> bool:
    """What every door says, for they must agree; each was asked that could be."""
    asking = asker(**who)
    found = answer(asking, question(asking, permission, str(row.pk)))
    assert found.agree, found.doors
    asked = {door.door for door in found.doors if door.allowed is not None}
    if "add_" not in permission:
        assert "queryset" in asked
    if "view_" in permission:
        assert "REST" in asked
    if "view_" in permission:
        assert "stream" in asked
    if "user" in who and "claims" not in who:
        assert "has_perm" in asked
    return found.explanation.allowed


def test_owners_do_everything_with_their_rows(in_force: Callable[[PolicySet], None]) -> None:
    ada, _bob = user("ada", *ALL), user("bob", *ALL)
    user("eve")
    own = Note.objects.create(title="own", owner=ada)
    nobodys = Note.objects.create(title="nobody's")
    in_force(ownership(Note))
    for permission in ALL:
        assert allowed(own, permission, user="ada")
        assert not allowed(own, permission, user="bob")
        assert not allowed(own, permission, user="eve")
        assert not allowed(nobodys, permission, user="ada")
        assert not allowed(own, permission, role="anon")


def test_an_owner_cannot_give_a_row_away() -> None:
    ada, bob = user("ada", *ALL), user("bob")
    ownership("zoo.Note").create()
    assert not ada.has_perm("zoo.add_note", Note(title="x", owner=bob))
    (change,) = Policy.objects.filter(permission__codename="change_note")
    assert change.with_check is None  # so the new row is asked the same


def test_what_is_public_anyone_reads_and_nobody_changes(
    in_force: Callable[[PolicySet], None],
) -> None:
    user("ada", *ALL)
    shown, hidden = Note.objects.create(title="a", is_public=True), Note.objects.create(title="b")
    in_force(public_read("zoo.Note"))
    for who in ({"role": "anon"}, {"user": "ada"}):
        assert allowed(shown, "zoo.view_note", **who)
        assert not allowed(hidden, "zoo.view_note", **who)
        assert not allowed(shown, "zoo.change_note", **who)


def test_rows_of_a_tenant_by_a_claim(in_force: Callable[[PolicySet], None]) -> None:
    user("ada", *ALL)
    ours, theirs = Note.objects.create(title="a", score=1), Note.objects.create(title="b", score=2)
    in_force(tenant(Note, "score", "$claims.app_metadata.tenant"))
    claims = {"app_metadata": {"tenant": 1}}
    assert allowed(ours, "zoo.view_note", user="ada", claims=claims)
    assert not allowed(theirs, "zoo.view_note", user="ada", claims=claims)
    # Without the claim, or without the permission, there is nothing.
    assert not allowed(ours, "zoo.view_note", user="ada")
    assert not allowed(ours, "zoo.view_note", claims={**claims, "sub": "outsider"})


def test_rows_of_a_tenant_by_a_field_of_the_user(in_force: Callable[[PolicySet], None]) -> None:
    user("ada", *ALL, last_name="red")
    ours, theirs = Note.objects.create(title="red"), Note.objects.create(title="blue")
    in_force(tenant(Note, "title", "$user.last_name", actions=["view", "delete"]))
    for permission in ("zoo.view_note", "zoo.delete_note"):
        assert allowed(ours, permission, user="ada")
        assert not allowed(theirs, permission, user="ada")
    assert not allowed(ours, "zoo.change_note", user="ada")


def test_a_restrictive_tenant_is_a_wall_for_everyone(in_force: Callable[[PolicySet], None]) -> None:
    ours = Note.objects.create(title="red", is_public=True)
    theirs = Note.objects.create(title="blue", is_public=True)
    user("ada", last_name="red")
    in_force(public_read(Note))
    assert allowed(theirs, "zoo.view_note", user="ada")
    in_force(tenant(Note, "title", "$user.last_name", mode="restrictive"))
    assert allowed(ours, "zoo.view_note", user="ada")
    assert not allowed(theirs, "zoo.view_note", user="ada")
    assert not allowed(ours, "zoo.view_note", role="anon")


def test_members_see_the_rows_of_their_groups(in_force: Callable[[PolicySet], None]) -> None:
    ada = user("ada", *ALL)
    user("bob", *ALL)
    stage, gates = Team.objects.create(name="Stage"), Team.objects.create(name="Gates")
    Member.objects.create(user=ada, team=stage)
    inside = Note.objects.create(title="a", team=stage)
    outside = Note.objects.create(title="b", team=gates)
    loose = Note.objects.create(title="c")
    in_force(membership(Note, "team", Member))
    assert allowed(inside, "zoo.view_note", user="ada")
    assert not allowed(outside, "zoo.view_note", user="ada")
    assert not allowed(loose, "zoo.view_note", user="ada")
    assert not allowed(inside, "zoo.view_note", user="bob")
    assert not allowed(inside, "zoo.delete_note", user="ada")


def test_a_membership_may_be_narrowed_and_the_groups_be_the_rows(
    in_force: Callable[[PolicySet], None],
) -> None:
    ada = user("ada", *ALL, "zoo.change_team")
    stage, gates = Team.objects.create(name="Stage"), Team.objects.create(name="Gates")
    Member.objects.create(user=ada, team=stage, role="lead")
    Member.objects.create(user=ada, team=gates)
    leading = Q(role="lead")
    in_force(membership(Note, "team", "zoo.Member", where=leading, actions=["view", "delete"]))
    in_force(membership(Team, "id", Member, where=leading, actions=["change"]))
    led = Note.objects.create(title="a", team=stage)
    other = Note.objects.create(title="b", team=gates)
    for permission in ("zoo.view_note", "zoo.delete_note"):
        assert allowed(led, permission, user="ada")
        assert not allowed(other, permission, user="ada")
    assert allowed(stage, "zoo.change_team", user="ada")
    assert not allowed(gates, "zoo.change_team", user="ada")


def test_groups_of_django_are_a_membership_like_any_other() -> None:
    through = User.groups.through
    shape = membership(Group, "id", through)
    assert shape.definitions[0].using == {
        "id__in": {"select": "group", "from": "auth.User_groups", "where": {"user": "$user.id"}}
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ownership(Note, "ownr"), "unknown column 'ownr' of zoo.Note; did you mean 'own"),
        (lambda: ownership("zoo.Nope"), "there is no model 'zoo.Nope'"),
        (lambda: ownership(7), 'expected a model or "app.Model", not 7'),
        (lambda: ownership(Note, "team"), "team of zoo.Note points to zoo.Team, not to the user"),
        (lambda: ownership(Note, "is_public"), "is_public of zoo.Note is bool, which cannot hold"),
        (lambda: ownership(Note, actions=["see"]), "actions is a list of some of view, add"),
        (lambda: ownership(Note, actions="view"), "actions is a list of some of view, add"),
        (lambda: ownership(Note, actions=[]), "actions is a list of some of view, add"),
        (lambda: ownership(Note, audience="all"), "audience is one of permission, auth"),
        (lambda: public_read(Note, "title"), "title of zoo.Note is text; public_read takes a boo"),
        (lambda: public_read(Note, "public"), "unknown column 'public' of zoo.Note; did you mean"),
        (lambda: tenant(Note, "team", "tenant"), "write '$claims.tenant' for a claim of the token"),
        (lambda: tenant(Note, "team", "$tenant"), "'$user.tenant' for a field of the user"),
        (lambda: tenant(Note, "team", "$user.tenant"), "$user.tenant: auth.User has no such field"),
        (lambda: tenant(Note, "team", "$claims."), "unknown reference '$claims.'"),
        (lambda: tenant(Note, "score__gt", "$claims.t"), "'score__gt' is no column of zoo.Note"),
        (lambda: tenant(Note, "team", "$claims.t", mode="and"), "mode is one of permissive, restr"),
        (lambda: membership(Note, "tema", Member), "unknown column 'tema' of zoo.Note; did you m"),
        (lambda: membership(Note, "score", Member), "score of zoo.Note is no foreign key; say wi"),
        (lambda: membership(Note, "team", Team), "zoo.Team should have one foreign key to zoo.Te"),
        (lambda: membership(Note, "team", Note, user_field="titl"), "did you mean 'title'?"),
        (lambda: membership(Note, "team", Member, group_field="x"), "unknown column 'x' of zoo.Me"),
        (lambda: membership(Note, "team", Member, where=Q(rank=1)), "unknown column 'rank' of zoo"),
        (lambda: membership(Note, "team", Member, where=Q() ^ Q(role="x") ^ Q(id=1)), "where: Q o"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(
    make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ShapeError) as caught:
        make()
    assert message in str(caught.value)


def test_a_link_that_is_missing_or_not_the_only_one_is_asked_for() -> None:
    with pytest.raises(ShapeError, match=r"foreign key to zoo\.Specimen and has none.*group_field"):
        membership(Specimen, "twin", Member)
    with isolate_apps("tests.zoo"):

        class Pairing(models.Model):
            first = models.ForeignKey(User, models.CASCADE, related_name="+")
            second = models.ForeignKey(User, models.CASCADE, related_name="+")
            team = models.ForeignKey(Team, models.CASCADE, related_name="+")

            class Meta:
                app_label = "zoo"

        with pytest.raises(ShapeError, match=r"has 2: first, second; .*user_field"):
            membership(Note, "team", Pairing)
        assert membership(Note, "team", Pairing, user_field="second").definitions


def test_columns_can_be_named_where_they_cannot_be_found() -> None:
    shape = membership(Note, "score", Member, group_field="id", user_field="user")
    assert shape.definitions[0].using["score__in"]["select"] == "id"


def test_the_names_tell_the_shape_and_can_be_given() -> None:
    assert [d.name for d in ownership(Note, actions=["view", "add"]).definitions] == [
        "zoo.Note: own rows by owner (view)",
        "zoo.Note: own rows by owner (add)",
    ]
    assert public_read(Note, name="Open notes").definitions[0].name == "Open notes (view)"


def test_a_shape_is_declared_by_the_module_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shapely_policies.py").write_text(
        "from auth_rls.shapes import public_read\npublic_read('zoo.Note').declare()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("shapely_policies")
    assert [d.source for d in declared_policies()] == ["shapely_policies"]
    del sys.modules["shapely_policies"]
    with pytest.raises(ImproperlyConfigured, match="declared twice"):
        importlib.import_module("shapely_policies")


def test_a_name_that_is_taken_stores_nothing() -> None:
    policy(True, name="zoo.Note: own rows by owner (delete)")
    with pytest.raises(ShapeError, match="There is a policy named"):
        ownership(Note).create()
    assert Policy.objects.count() == 1
    public_read(Note).declare()
    with pytest.raises(ShapeError, match="declared in code already has this name"):
        public_read(Note).create()


def test_outside_a_migration_the_permission_must_be_there() -> None:
    Permission.objects.filter(codename="view_note").delete()
    with pytest.raises(ShapeError, match=r"no permission zoo\.view_note; run migrate first"):
        public_read(Note).create()


def test_a_migration_stores_shapes_before_permissions_are_made() -> None:
    from django.db.migrations.state import ProjectState

    state = ProjectState.from_apps(apps).apps
    ContentType.objects.filter(app_label="zoo", model="note").delete()
    ContentType.objects.clear_cache()
    assert not Permission.objects.filter(codename="view_note").exists()
    made = membership(
        state.get_model("zoo", "Note"), "team", state.get_model("zoo", "Member")
    ).create(state)
    assert [type(one) for one in made] == [state.get_model("auth_rls", "Policy")]
    stored = Policy.objects.get()
    assert stored.problem() is None
    assert stored.permission.name == "Can view note"
    with pytest.raises(ShapeError, match="already"):
        membership("zoo.Note", "team", "zoo.Member").create(state)
