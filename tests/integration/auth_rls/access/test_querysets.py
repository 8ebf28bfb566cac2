"""The queryset door beside what a queryset does itself: groups, annotations, aliases."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import Count, F, Max, QuerySet, Value

from auth_rls import visible
from tests.support.policies import policy, user
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> User:
    """Ada sees her own note, and not the two of somebody who came later."""
    ada, other = user("ada"), user("other")
    policy({"owner": "$user.id"})
    Note.objects.create(owner=ada, title="mine", score=other.pk)
    Note.objects.create(owner=other, title="his", score=ada.pk)
    Note.objects.create(owner=other, title="his, too", score=ada.pk)
    return ada


def named_like_the_owner(values: Any) -> QuerySet[Any, Any]:
    """The notes with an annotation that has the name of the column that the policy compares."""
    return Note.objects.values("title").annotate(owner_id=values)


def test_groups_count_visible_rows_alone(ada: User) -> None:
    groups = Note.objects.values("is_public").annotate(number=Count("pk"))
    assert [group["number"] for group in visible(groups, ada)] == [1]


def test_an_annotation_with_the_name_of_a_column_is_not_judged_in_its_place(ada: User) -> None:
    for shadow in (Value(ada.pk), F("score")):
        found = visible(named_like_the_owner(shadow), ada)
        assert [row["title"] for row in found] == ["mine"]


def test_an_aggregate_with_the_name_of_a_column_sums_up_visible_rows_alone(ada: User) -> None:
    groups = Note.objects.values("is_public").annotate(
        owner_id=Max("score") * 0 + ada.pk, number=Count("pk")
    )
    assert [group["number"] for group in visible(groups, ada)] == [1]


def test_an_alias_with_the_name_of_a_column_is_not_judged_in_its_place(ada: User) -> None:
    found = visible(Note.objects.values("title").alias(owner_id=Value(ada.pk)), ada)
    assert [row["title"] for row in found] == ["mine"]
