"""Policies applied: who sees which row, and why."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.db import models

from auth_rls import Subject, permitted, visible
from auth_rls.access.authority import columns_read, renew, renew_all, row_predicate, watched
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.models import Policy
from auth_rls.predicates.predicate import FALSE, TRUE, All, Test
from tests.support.policies import fresh, permission, policy, seen, user
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.django_db

ADA = Subject(role="authenticated", user_id="someone-elsewhere")


@pytest.fixture
def notes() -> None:
    Note.objects.create(title="public", is_public=True, score=1)
    Note.objects.create(title="private", is_public=False, score=2)
    Note.objects.create(title="unscored", is_public=False)


def test_without_a_policy_nothing_is_seen(notes: None) -> None:
    assert seen(user("ada", "zoo.view_note")) == set()
    assert seen(Subject.anonymous()) == set()
    assert row_predicate(ADA, Note) == FALSE


def test_service_role_and_active_superusers_see_everything(notes: None) -> None:
    everything = {"public", "private", "unscored"}
    assert seen(Subject.service()) == everything
    assert seen(user("root", is_superuser=True)) == everything
    assert row_predicate(Subject.service(), Note) == TRUE


def test_an_inactive_superuser_sees_nothing(notes: None) -> None:
    policy(True)
    assert not visible(Note.objects.all(), user(is_superuser=True, is_active=False)).exists()


def test_a_policy_for_anyone_serves_the_anonymous(notes: None) -> None:
    policy({"is_public": True})
    assert seen(Subject.anonymous()) == {"public"}
    assert seen(AnonymousUser()) == {"public"}
    assert seen(user()) == {"public"}


def test_a_policy_for_the_authenticated_serves_every_login_and_no_other(notes: None) -> None:
    policy({"is_public": True}, audience="authenticated")
    assert seen(user()) == {"public"}
    assert seen(ADA) == {"public"}
    assert seen(Subject.anonymous()) == set()


def test_a_policy_for_holders_serves_those_who_hold_the_permission_themselves(
    notes: None,
) -> None:
    policy(True, audience="permission")
    assert len(seen(user("holder", "zoo.view_note"))) == 3
    assert seen(user("changer", "zoo.change_note")) == set()
    assert seen(user("nobody")) == set()


def test_a_policy_for_holders_serves_members_of_a_group_that_holds_it(notes: None) -> None:
    policy(True, audience="permission")
    group = Group.objects.create(name="readers")
    group.permissions.add(permission("zoo.view_note"))
    ada = user()
    assert seen(ada) == set()
    group.user_set.add(ada)
    # The same user object: what it cached of its permissions must not matter.
    assert len(seen(ada)) == 3
    group.user_set.remove(ada)
    assert seen(ada) == set()


def test_a_subject_without_a_django_user_holds_no_permission(notes: None) -> None:
    policy(True, audience="permission")
    assert seen(ADA) == set()


def test_permissive_policies_are_alternatives(notes: None) -> None:
    policy({"is_public": True})
    policy({"score": 2})
    assert seen(user()) == {"public", "private"}


def test_a_restrictive_policy_must_agree_as_well(notes: None) -> None:
    policy(True)
    policy({"score__lte": 1}, mode="restrictive")
    assert seen(user()) == {"public"}


def test_restrictive_policies_alone_let_nothing_through(notes: None) -> None:
    policy(True, mode="restrictive")
    assert seen(user()) == set()


def test_a_restrictive_policy_leaves_those_it_does_not_concern_alone(notes: None) -> None:
    policy(True)
    policy(False, mode="restrictive", audience="authenticated")
    assert len(seen(Subject.anonymous())) == 3
    assert seen(user()) == set()


def test_a_disabled_policy_does_nothing(notes: None) -> None:
    policy(True, enabled=False)
    assert seen(user()) == set()


def test_each_action_has_policies_of_its_own(notes: None) -> None:
    policy({"is_public": True})
    policy({"score": 2}, on="zoo.change_note")
    ada = user()
    assert [n.title for n in permitted(Note.objects.all(), ada, "view")] == ["public"]
    assert [n.title for n in permitted(Note.objects.all(), ada, "change")] == ["private"]
    assert not permitted(Note.objects.all(), ada, "delete").exists()


@pytest.mark.parametrize("action", ["add", "see", ""])
def test_permitted_knows_view_change_and_delete_only(action: str) -> None:
    with pytest.raises(ValueError, match="view, change or delete"):
        permitted(Note.objects.all(), ADA, action)


def test_the_user_id_is_the_primary_key(notes: None) -> None:
    ada, bob = user("ada"), user("bob")
    policy({"owner": "$user.id"})
    Note.objects.create(title="ada's", owner=ada)
    assert seen(ada) == {"ada's"}
    assert seen(bob) == set()
    assert seen(Subject.anonymous()) == set()


def test_fields_of_the_user_can_be_compared(notes: None) -> None:
    policy({"title": "$user.username"})
    assert seen(user("public")) == {"public"}
    assert seen(ADA) == set()


def test_without_a_django_user_the_id_is_the_sub_itself(notes: None) -> None:
    policy({"title": "$user.id"})
    assert seen(Subject(role="authenticated", user_id="private")) == {"private"}


def test_the_role_can_be_compared(notes: None) -> None:
    policy({"title": "$role"})
    Note.objects.create(title="anon")
    Note.objects.create(title="authenticated")
    assert seen(Subject.anonymous()) == {"anon"}
    assert seen(user()) == {"authenticated"}


def test_claims_are_followed_along_their_path(notes: None) -> None:
    policy({"score": "$claims.app.score"})
    claims: dict[str, Any] = {"app": {"score": 2}}
    assert seen(Subject(role="authenticated", claims=claims)) == {"private"}


@pytest.mark.parametrize(
    "claims",
    [{}, {"app": {}}, {"app": None}, {"app": 2}, {"app": {"score": None}}, {"app": {"score": "x"}}],
)
def test_a_claim_that_is_missing_or_no_number_matches_nothing(
    notes: None, claims: dict[str, Any]
) -> None:
    policy({"score": "$claims.app.score"})
    policy({"not": {"score": "$claims.app.score"}})
    assert seen(Subject(role="authenticated", claims=claims)) == set()


def test_a_list_in_the_claims_is_a_set(notes: None) -> None:
    policy({"score__in": "$claims.scores"})
    assert seen(Subject(role="authenticated", claims={"scores": [1, 2]})) == {"public", "private"}
    assert seen(Subject(role="authenticated", claims={"scores": []})) == set()
    assert seen(Subject(role="authenticated")) == set()


def test_a_null_is_neither_equal_nor_unequal(notes: None) -> None:
    ada = user()
    policy({"not": {"score": 1}})
    assert seen(ada) == {"private"}
    Policy.objects.all().delete()
    policy({"any": [{"not": {"score": 1}}, {"score__isnull": True}]})
    assert seen(ada) == {"private", "unscored"}


def test_a_select_is_the_set_of_another_tables_rows(notes: None) -> None:
    policy(
        {"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}},
        audience="authenticated",
    )
    ada, bob = user("ada"), user("bob")
    red, blue = Team.objects.create(name="red"), Team.objects.create(name="blue")
    Note.objects.create(title="of red", team=red)
    Note.objects.create(title="of blue", team=blue)
    assert seen(ada) == set()
    Member.objects.create(user=ada, team=red)
    Member.objects.create(user=bob, team=blue)
    assert seen(ada) == {"of red"}
    assert seen(bob) == {"of blue"}


def test_a_select_may_stand_inside_a_select(notes: None) -> None:
    colleagues = {
        "select": "user",
        "from": "zoo.Member",
        "where": {
            "team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
        },
    }
    policy({"owner__in": colleagues})
    ada, bob, eve = user("ada"), user("bob"), user("eve")
    red = Team.objects.create(name="red")
    for member in (ada, bob):
        Member.objects.create(user=member, team=red)
    for owner in (ada, bob, eve):
        Note.objects.create(title=f"{owner.username}'s", owner=owner)
    assert seen(ada) == {"ada's", "bob's"}
    assert seen(eve) == set()


def test_a_prefix_makes_names_of_ids(notes: None) -> None:
    policy(
        {
            "title__in": {
                "select": "team",
                "from": "zoo.Member",
                "where": {"user": "$user.id"},
                "prefix": "room:",
            }
        }
    )
    ada = user()
    red = Team.objects.create(name="red")
    Member.objects.create(user=ada, team=red)
    Note.objects.create(title=f"room:{red.pk}")
    Note.objects.create(title=str(red.pk))
    assert seen(ada) == {f"room:{red.pk}"}


def test_values_of_every_sort_are_compared_alike_by_every_door() -> None:
    ref = "6c84fb90-12c4-11e1-840d-7b25c5ee775a"
    Note.objects.create(
        title="full",
        price=Decimal("12.50"),
        created=datetime(2025, 11, 3, 9, 32, 55, 123456, tzinfo=UTC),
        ref=ref,
    )
    Note.objects.create(title="empty")
    for using in (
        {"price": 12.5},
        {"price__range": ["12.49", 13]},
        {"created": "2025-11-03T10:32:55.123456+01:00"},
        {"created__lt": "2025-11-03T09:32:55.123457Z"},
        {"ref": ref.upper()},
        {"title__istartswith": "FU"},
    ):
        Policy.objects.all().delete()
        policy(using)
        assert seen(user(f"asks {using}"[:150])) == {"full"}, using


def test_visible_rows_cost_one_query_however_many_selects(
    notes: None, django_assert_num_queries: Any
) -> None:
    policy({"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}})
    ada = user()
    with django_assert_num_queries(1):
        rows = visible(Note.objects.all(), ada)
    with django_assert_num_queries(1):
        list(rows)


def test_visible_narrows_what_the_queryset_already_says(notes: None) -> None:
    policy({"score__isnull": False})
    rows = visible(Note.objects.filter(title__startswith="p").order_by("-score"), user())
    assert list(rows.values_list("title", flat=True)) == ["private", "public"]


def test_a_snapshot_answers_for_many_subjects_without_asking_again(
    notes: None, django_assert_num_queries: Any
) -> None:
    policy({"score__gte": 1}, audience="permission")
    subjects = [Subject.from_user(user(f"user {n}", "zoo.view_note")) for n in range(5)]
    with django_assert_num_queries(2):
        snapshot = PolicySnapshot.load()
        snapshot.prefetch(subjects, Note)
        predicates = [row_predicate(subject, Note, snapshot=snapshot) for subject in subjects]
    assert len(set(predicates)) == 1
    assert predicates[0] == Test("score", "gte", 1)


def test_equal_sets_are_read_once_for_a_snapshot(
    notes: None, django_assert_num_queries: Any
) -> None:
    policy({"team__in": {"select": "id", "from": "zoo.Team", "where": True}})
    snapshot = PolicySnapshot.load()
    with django_assert_num_queries(1):
        row_predicate(Subject.anonymous(), Note, snapshot=snapshot)
        row_predicate(ADA, Note, snapshot=snapshot)


def test_predicates_are_bound_and_simplified() -> None:
    ada = user()
    policy({"all": [True, {"owner": "$user.id"}, {"is_public": True}]})
    assert row_predicate(Subject.from_user(ada), Note) == All(
        (Test("is_public", "exact", True), Test("owner_id", "exact", ada.pk))
    )


class TestBroken:
    """A policy that cannot be understood denies those whom it concerns, and nobody else."""

    def test_permissive_it_grants_nothing_and_spoils_nothing(self, notes: None) -> None:
        policy({"no_such_column": 1})
        assert seen(user("ada")) == set()
        policy({"is_public": True})
        assert seen(user("bob")) == {"public"}

    def test_restrictive_it_denies_all(self, notes: None) -> None:
        policy(True)
        policy({"score__sounds_like": 1}, mode="restrictive", audience="authenticated")
        assert seen(user()) == set()
        assert len(seen(Subject.anonymous())) == 3

    def test_service_role_is_not_touched(self, notes: None) -> None:
        policy({"no_such_column": 1}, mode="restrictive")
        assert len(seen(Subject.service())) == 3

    def test_other_tables_are_not_touched(self, notes: None) -> None:
        policy(True)
        policy({"no_such_column": 1}, on="zoo.view_team", mode="restrictive")
        assert len(seen(user())) == 3

    def test_it_is_logged_once_until_it_changes(
        self, notes: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = policy({"no_such_column": 1}, name="Broken one")
        with caplog.at_level(logging.ERROR, logger="auth_rls"):
            seen(user())
            seen(Subject.anonymous())
            assert len(caplog.records) == 1
            assert "Broken one" in caplog.text and "no_such_column" in caplog.text
            broken.using = {"nor_this": 1}
            broken.save_base(raw=True)
            seen(Subject.anonymous())
        assert len(caplog.records) == 2

    @pytest.mark.parametrize(
        "fields", [{"audience": "everyone"}, {"mode": "lenient"}, {"using": {}}]
    )
    def test_odd_values_in_the_table_never_grant(self, notes: None, fields: dict[str, Any]) -> None:
        Policy.objects.bulk_create(
            [
                Policy(
                    **{
                        "name": "odd",
                        "permission": permission("zoo.view_note"),
                        "using": True,
                        "audience": "anyone",
                        **fields,
                    }
                )
            ]
        )
        assert seen(Subject.anonymous()) == set()


def test_what_can_change_a_verdict_is_watched() -> None:
    policy(
        {
            "any": [
                {"title": "$user.email"},
                {
                    "team__in": {
                        "select": "team",
                        "from": "zoo.Member",
                        "where": {"user": "$user.id"},
                    }
                },
            ]
        }
    )
    # Nothing follows changes of rows that may be changed.
    policy({"team__in": {"select": "id", "from": "zoo.Team"}}, on="zoo.change_note")
    seen_tables = watched()
    assert seen_tables[Member] == {"team_id", "user_id"}
    assert seen_tables[User] == {"id", "is_active", "is_superuser", "email"}
    assert {"using", "enabled", "audience", "mode", "permission_id"} <= seen_tables[Policy]
    assert User.groups.through in seen_tables
    assert User.user_permissions.through in seen_tables
    assert Group.permissions.through in seen_tables
    assert Team not in seen_tables


def test_columns_read_are_those_of_the_table_itself() -> None:
    policy(
        {
            "score": 1,
            "team__in": {"select": "team", "from": "zoo.Member", "where": {"role": "member"}},
        }
    )
    policy({"is_public": True}, mode="restrictive")
    policy({"title": "x"}, enabled=False)
    assert columns_read(Note) == {"score", "team_id", "is_public"}
    assert columns_read(Team) == frozenset()


def test_a_renewed_subject_is_as_the_database_has_it() -> None:
    ada = user()
    subject = Subject.from_user(ada)
    User.objects.filter(pk=ada.pk).update(is_superuser=True)
    assert not subject.bypasses_rls
    renewed = renew(subject)
    assert renewed is not None and renewed.bypasses_rls
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert renew(subject) is None


def test_a_deleted_user_is_not_renewed() -> None:
    ada = user()
    subject = Subject.from_user(fresh(ada))
    ada.delete()
    assert renew(subject) is None


def test_a_user_whom_the_default_manager_hides_since_is_not_renewed(monkeypatch: Any) -> None:
    subject = Subject.from_user(user())
    hiding = models.Manager()
    hiding.model = User
    monkeypatch.setattr(hiding, "get_queryset", lambda: models.QuerySet(User).none())
    monkeypatch.setitem(User._meta.__dict__, "default_manager", hiding)
    assert renew(subject) is None


def test_subjects_without_a_user_stay_as_they_are() -> None:
    for subject in (Subject.anonymous(), Subject.service(), ADA):
        assert renew(subject) == subject


def test_a_sub_becomes_a_django_user_once_there_is_one() -> None:
    subject = Subject(role="authenticated", user_id="4711")
    assert renew(subject) == subject
    made = User.objects.create(pk=4711, username="late")
    renewed = renew(subject)
    assert renewed is not None and renewed.user == made and renewed.user_id == 4711


def test_many_subjects_are_renewed_with_one_query(django_assert_num_queries: Any) -> None:
    subjects = [Subject.from_user(user(f"user {n}")) for n in range(4)] + [Subject.anonymous()]
    User.objects.filter(username="user 2").update(is_active=False)
    with django_assert_num_queries(1):
        renewed = renew_all(subjects)
    assert [subject is None for subject in renewed] == [False, False, True, False, False]
