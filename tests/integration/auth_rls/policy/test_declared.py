"""Policies declared in code, and Q objects as policies."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db.models import Exists, F, Q, TextChoices

from auth_rls import Subject, declare_policy, select
from auth_rls.models import Policy
from auth_rls.policy.declared import declared_policies
from auth_rls.policy.qobjects import to_json
from tests.support.policies import permission, policy, seen, user
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.usefixtures("nothing_declared")


class Size(TextChoices):
    SMALL = "small"


@pytest.mark.parametrize(
    ("q", "written"),
    [
        (True, True),
        (False, False),
        (Q(), True),
        (Q(score=1), {"score": 1}),
        (Q(score__gte=1, title="x"), {"all": [{"score__gte": 1}, {"title": "x"}]}),
        (Q(score=1) & Q(score=2), {"all": [{"score": 1}, {"score": 2}]}),
        (Q(score=1) | ~Q(title="$role"), {"any": [{"score": 1}, {"not": {"title": "$role"}}]}),
        (
            ~(Q(score=1) | Q(score=2)),
            {"not": {"any": [{"score": 1}, {"score": 2}]}},
        ),
        (Q(owner=None), {"owner__isnull": True}),
        (Q(price=Decimal("1.50")), {"price": "1.50"}),
        (
            Q(ref=uuid.UUID(int=1)),
            {"ref": "00000000-0000-0000-0000-000000000001"},
        ),
        (Q(created=datetime(2025, 1, 1, tzinfo=UTC)), {"created": "2025-01-01T00:00:00+00:00"}),
        (Q(created__in=[date(2025, 1, 2)]), {"created__in": ["2025-01-02"]}),
        (Q(d=timedelta(hours=1)), {"d": "P0DT01H00M00S"}),
        (Q(title=Size.SMALL), {"title": "small"}),
        (Q(score__in={3, 1, 2}), {"score__in": [1, 2, 3]}),
        (
            Q(team__in=select("team", "zoo.Member", Q(user="$user.id"), prefix="t:")),
            {
                "team__in": {
                    "select": "team",
                    "from": "zoo.Member",
                    "where": {"user": "$user.id"},
                    "prefix": "t:",
                }
            },
        ),
    ],
)
def test_q_objects_become_policy_json(q: Any, written: Any) -> None:
    assert to_json(q) == written


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (Q(score=F("id")), "score: F has no policy form"),
        (Q(Exists(Note.objects.all())), "is an expression"),
        (Q(score=1) ^ Q(score=2), "joined by"),
        (Q(owner__in=Note.objects.all()), "QuerySet has no policy form"),
        (Q(owner=Note()), "Note has no policy form"),
        ({"score": 1}, "expected a Q object"),
    ],
)
def test_q_objects_that_policies_cannot_say_are_refused(q: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        declare_policy("p", "zoo.view_note", using=q)


def test_a_name_is_declared_once() -> None:
    declare_policy("p", "zoo.view_note", using=True)
    with pytest.raises(ImproperlyConfigured, match="declared twice"):
        declare_policy("p", "zoo.view_note", using=True)


def test_a_declaration_knows_where_it_stands() -> None:
    declare_policy("p", "zoo.view_note", using=True)
    (declared,) = declared_policies()
    assert declared.source == __name__


@pytest.mark.django_db
def test_declared_policies_are_in_force_beside_stored_ones() -> None:
    ada = user()
    red = Team.objects.create(name="red")
    Member.objects.create(user=ada, team=red)
    for title, fields in {"mine": {"owner": ada}, "team's": {"team": red}, "not": {}}.items():
        Note.objects.create(title=title, **fields)
    policy({"owner": "$user.id"})
    assert seen(ada) == {"mine"}
    declare_policy(
        "Notes of my teams",
        "zoo.view_note",
        audience="authenticated",
        using=Q(team__in=select("team", "zoo.Member", Q(user="$user.id"))),
    )
    assert seen(ada) == {"mine", "team's"}
    assert seen(Subject.anonymous()) == set()


@pytest.mark.django_db
def test_a_negated_q_is_not_true_of_null() -> None:
    declare_policy("p", "zoo.view_note", audience="anyone", using=~Q(score=1))
    Note.objects.create(title="one", score=1)
    Note.objects.create(title="two", score=2)
    Note.objects.create(title="none")
    assert seen(Subject.anonymous()) == {"two"}


@pytest.mark.django_db
def test_a_broken_declaration_denies() -> None:
    Note.objects.create(title="x")
    declare_policy("everything", "zoo.view_note", audience="anyone", using=True)
    assert seen(Subject.anonymous()) == {"x"}
    declare_policy("p", "zoo.view_note", audience="anyone", mode="restrictive", using=Q(ownr=1))
    assert seen(Subject.anonymous()) == set()


@pytest.mark.django_db
def test_a_stored_policy_may_not_take_a_declared_name() -> None:
    declare_policy("taken", "zoo.view_note", using=True)
    stored = Policy(name="taken", permission=permission("zoo.view_note"), using=True)
    with pytest.raises(ValidationError, match="declared in code"):
        stored.full_clean()
