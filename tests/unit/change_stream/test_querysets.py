"""What a queryset asks for, and what of it has no counterpart in changes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Count, Exists, F, OuterRef, Q, Value
from django.db.models.functions import Lower

from auth_rls.predicates.predicate import FALSE, TRUE, All, Any_, Not, Test
from realtime.change_stream.querysets import Choice, NotFollowed, choice_of
from tests.zoo.models import Diner, Note, Seat, Specimen

NOTES = Note.objects


def test_all_rows_and_columns() -> None:
    assert choice_of(NOTES.all()) == Choice(TRUE, None)
    assert choice_of(NOTES.none()).condition == FALSE


@pytest.mark.parametrize(
    ("queryset", "condition"),
    [
        (NOTES.filter(score=3), Test("score", "exact", 3)),
        (NOTES.filter(score__in=[1, None, 2]), Test("score", "in", frozenset({1, 2}))),
        (NOTES.filter(score__in=[]), FALSE),
        (NOTES.filter(score__range=(1, 2)), Test("score", "range", (1, 2))),
        (NOTES.filter(score=None), Test("score", "isnull", True)),
        (NOTES.filter(score__isnull=False), Test("score", "isnull", False)),
        (NOTES.filter(owner=7), Test("owner_id", "exact", 7)),
        (NOTES.filter(owner__pk=7), Test("owner_id", "exact", 7)),
        (NOTES.filter(team_id__in=[7]), Test("team_id", "in", frozenset({7}))),
        (NOTES.filter(pk=7), Test("id", "exact", 7)),
        (NOTES.filter(is_public=True), Test("is_public", "exact", True)),
        (NOTES.filter(title__startswith="$a"), Test("title", "startswith", "$a")),
        (NOTES.filter(title__icontains="100%"), Test("title", "icontains", "100%")),
        (NOTES.filter(price__lt=Decimal("1.5")), Test("price", "lt", Decimal("1.5"))),
        (
            NOTES.filter(created__gte=datetime(2026, 1, 1, tzinfo=UTC)),
            Test("created", "gte", datetime(2026, 1, 1, tzinfo=UTC)),
        ),
        (
            NOTES.filter(ref=UUID(int=1)),
            Test("ref", "exact", "00000000-0000-0000-0000-000000000001"),
        ),
        (Specimen.objects.filter(renamed=1), Test("other_name", "exact", 1)),
        (Specimen.objects.filter(json__isnull=True), Test("json", "isnull", True)),
    ],
)
def test_a_comparison_is_a_test(queryset: Any, condition: Any) -> None:
    assert choice_of(queryset).condition == condition


def test_conditions_keep_their_connections() -> None:
    found = choice_of(NOTES.filter(Q(score=1) | ~Q(score=2), is_public=False)).condition
    one, two, public = (
        Test("score", "exact", 1),
        Test("score", "exact", 2),
        Test("is_public", "exact", False),
    )
    not_null = Test("score", "isnull", False)
    assert found == All((Any_((one, Not(All((two, not_null))))), public))


def test_what_says_nothing_of_changes_is_passed_over() -> None:
    queryset = NOTES.order_by("title").select_related("owner").prefetch_related("team")
    assert choice_of(queryset.select_for_update()) == Choice()


def test_only_and_defer_choose_columns() -> None:
    assert choice_of(NOTES.only("title", "owner")).select == ("owner_id", "title")
    deferred = choice_of(NOTES.defer("body", "title")).select
    assert deferred is not None and {"body", "title"}.isdisjoint(deferred) and "id" in deferred


@pytest.mark.parametrize(
    ("queryset", "text"),
    [
        (NOTES.filter(owner__username="ada"), "auth.User.username: it joins another table"),
        (NOTES.filter(team__member__role="x"), "joins"),
        (Diner.objects.filter(city="x"), "zoo.Place.city: it joins"),
        (NOTES.annotate(n=Count("team")), "annotation 'n'"),
        (NOTES.alias(low=Lower("title")).filter(low="a"), "annotation 'low'"),
        (NOTES.filter(score__gt=F("owner_id")), "score__gt: it compares with an expression"),
        (NOTES.filter(score__in=NOTES.values("score")), "score__in: it compares with a subquery"),
        (NOTES.filter(score__in=[F("owner_id")]), "expression"),
        (NOTES.filter(Exists(NOTES.filter(pk=OuterRef("pk")))), "the filter Exists"),
        (NOTES.filter(Q(Value(True))), "the filter"),
        (NOTES.filter(created__year=2026), "created__year"),
        (NOTES.filter(created__date="2026-01-01"), "transforms"),
        (NOTES.filter(title__regex="a+"), "title__regex.*title=match"),
        (NOTES.filter(title__gt="a"), "title__gt: a database orders texts.*title=gt"),
        (NOTES.filter(price=Decimal("1.005")), "2 decimal places"),
        (Specimen.objects.filter(json={"a": 1}), "json__exact"),
        (Specimen.objects.filter(json__a=1), "json"),
        (Seat.objects.filter(pk=(1, 2)), "tuples"),
        (NOTES.filter(Q(score=1) ^ Q(score=2)), "XOR.*instead of"),
        (NOTES.all()[:3], "a slice"),
        (NOTES.distinct(), r"distinct\(\)"),
        (NOTES.values("title"), r"values\(\)"),
        (NOTES.values_list("title"), "values_list"),
        (NOTES.union(NOTES.all()), r"union\(\)"),
        (NOTES.extra(where=["1=1"]), "Extra"),
        (NOTES.only("owner__username"), r"only\(\).*another table"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_name(queryset: Any, text: str) -> None:
    with pytest.raises(NotFollowed, match=text) as refused:
        choice_of(queryset)
    assert str(refused.value).startswith("changes() cannot follow this queryset: ")
    assert isinstance(refused.value, ValueError)
