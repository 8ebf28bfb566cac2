"""A queryset's condition is true of a captured row exactly where the database selects the row."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Q
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth_rls.predicates.evaluate import matcher
from realtime.change_stream.querysets import NotFollowed, choice_of
from realtime.event_log.event import RowImage
from realtime.models import WalEntry
from tests.support.predicates import CELLS, KINDS, addresses, moments, reals, spans, texts, uuids
from tests.zoo.models import Specimen

pytestmark = pytest.mark.django_db

# As few values as make rows and conditions meet.
PLAIN = st.text("ab_%\\$", max_size=3)
WHOLE = st.sampled_from([0, 1, 2, 7, -1, 32767])
GRID = st.sampled_from([Decimal(t) for t in ("0", "1.5", "-0.0001", "1.005", "7")])
ORDER = ("gt", "gte", "lt", "lte")
COMPARED: dict[str, tuple[st.SearchStrategy[Any], tuple[str, ...]]] = {
    "boolean": (st.booleans(), ("exact",)),
    "integer": (WHOLE, ("exact", *ORDER)),
    "big": (CELLS["big"] | WHOLE, ("exact", *ORDER)),
    "real": (reals, ("exact", *ORDER)),
    "decimal": (GRID, ("exact", *ORDER)),
    "char": (texts, ("exact",)),
    # SQLite's own comparison ignores case here; see the how-to.
    "text": (PLAIN, ("exact", "contains", "startswith", "endswith")),
    "slug": (st.text("aAbB%_", max_size=3), ("iexact", "icontains", "istartswith", "iendswith")),
    "date": (CELLS["date"], ("exact", *ORDER)),
    "time": (CELLS["time"], ("exact", *ORDER)),
    "moment": (moments, ("exact", *ORDER)),
    "duration": (spans, ("exact", *ORDER)),
    "uuid": (uuids, ("exact",)),
    "inet": (addresses, ("exact",)),
    "renamed": (WHOLE, ("exact", *ORDER)),
    "owner": (st.sampled_from([1, 2]), ("exact",)),
}

rows = st.fixed_dictionaries(
    {name if name != "owner" else "owner_id": st.none() | v for name, (v, _) in COMPARED.items()}
)


@st.composite
def comparisons(draw: st.DrawFn) -> Q:
    name = draw(st.sampled_from(sorted(COMPARED)))
    values, lookups = COMPARED[name]
    lookup = draw(st.sampled_from([*lookups, "in", "isnull", "range"]))
    if lookup == "isnull":
        return Q(**{f"{name}__isnull": draw(st.booleans())})
    if lookup == "in":
        return Q(**{f"{name}__in": draw(st.lists(values, max_size=3))})
    if lookup == "range" and "gt" not in lookups:
        lookup = lookups[0]
    if lookup == "range":
        return Q(**{f"{name}__range": (draw(values), draw(values))})
    return Q(**{f"{name}__{lookup}": draw(values)})


conditions = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        inner.map(lambda one: ~one),
    ),
    max_leaves=5,
)


def captured(pks: list[int]) -> dict[int, RowImage]:
    entries = WalEntry.objects.filter(table_name="zoo_specimen", op="INSERT")
    raw = entries.filter(pk_text__in=map(str, pks)).values_list("pk_text", "new")
    return {int(pk): RowImage(new.encode(), KINDS["zoo.Specimen"]) for pk, new in raw}


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    specimens=st.lists(rows, min_size=1, max_size=4),
    asked=st.lists(conditions, min_size=4, max_size=10),
)
def test_a_queryset_and_its_condition_choose_the_same_rows(
    specimens: list[dict[str, Any]], asked: list[Q], django_user_model: Any
) -> None:
    with transaction.atomic():
        for number in (1, 2):
            django_user_model.objects.get_or_create(pk=number, username=f"user {number}")
        made = [Specimen.objects.create(**specimen).pk for specimen in specimens]
        images = captured(made)
        assert set(images) == set(made)
        for one in asked:
            queryset = Specimen.objects.filter(one, pk__in=made)
            judge = matcher(choice_of(queryset).condition)
            found = {pk for pk, image in images.items() if judge(image) is True}
            assert found == set(queryset.values_list("pk", flat=True)), one
        transaction.set_rollback(True)


def test_what_a_field_makes_of_a_value_is_what_is_compared() -> None:
    from tests.zoo.models import Place

    choice = choice_of(Place.objects.filter(code="ab"))
    assert matcher(choice.condition)({"code": "AB"}) is True
    with pytest.raises(NotFollowed, match="decimal places"):
        choice_of(Specimen.objects.filter(decimal=Decimal("0.00001")))
