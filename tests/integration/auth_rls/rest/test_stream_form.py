"""A row by REST in the stream's form is the row that the stream sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import models
from rest_framework.renderers import JSONRenderer

from auth_rls.rest import PolicyModelSerializer
from realtime.testing import captured_changes
from tests.support.policies import user
from tests.support.specimens import BYTES, FULL
from tests.zoo.models import Diner, Note, Place, Restaurant, Seat, Specimen, Team

pytestmark = pytest.mark.django_db


def serializer_of(of: type[models.Model], **meta: Any) -> type[PolicyModelSerializer]:
    options = type("Meta", (), {"model": of, "fields": "__all__", **meta})
    return type("Made", (PolicyModelSerializer,), {"Meta": options})


def by_rest(instance: models.Model, **options: Any) -> dict[str, Any]:
    """The row as a client reads it by REST, read anew."""
    model = type(instance)
    stored = model._base_manager.get(pk=instance.pk)
    data = serializer_of(model)(stored, **{"stream_form": True, **options}).data
    found: dict[str, Any] = json.loads(JSONRenderer().render(data))
    return found


def check(make: Any) -> None:
    """What `make` creates is the same by REST as in the stream, for every table it has a row in."""
    with captured_changes() as changes:
        made = make()
    shown = by_rest(made)
    assert changes
    for change in changes:
        if change.model in (type(made), *type(made)._meta.get_parent_list()):
            assert change.new is not None
            of_table = {name: shown[name] for name in change.new}
            assert of_table == dict(change.new)


def test_a_row_with_a_value_in_every_column() -> None:
    owner = user()
    twin = Specimen.objects.create()
    check(lambda: Specimen.objects.create(**FULL, owner=owner, twin=twin))


def test_a_row_of_nulls() -> None:
    check(Specimen.objects.create)


@pytest.mark.parametrize(("field", "value", "text"), BYTES, ids=lambda value: repr(value)[:40])
def test_every_odd_value_of_every_kind(field: str, value: Any, text: str) -> None:
    check(lambda: Specimen.objects.create(**{field: value}))
    stored = Specimen.objects.get()
    column = Specimen._meta.get_field(field).column
    assert by_rest(stored)[column] == json.loads(text)


def test_foreign_keys_and_decimals_and_moments_of_a_usual_model() -> None:
    owner, team = user(), Team.objects.create(name="t")
    check(lambda: Note.objects.create(title="a", owner=owner, team=team, price="2.50"))
    shown = by_rest(Note.objects.get())
    assert (shown["owner_id"], shown["team_id"], shown["price"]) == (owner.pk, team.pk, 2.5)
    assert "owner" not in shown


def test_fields_that_store_other_values_than_they_show() -> None:
    check(lambda: Place.objects.create(city="Ulm", code="a", sealed="abc"))
    assert by_rest(Place.objects.get())["sealed"] == "cba"


def test_rows_of_a_child_have_the_columns_of_their_table() -> None:
    check(lambda: Restaurant.objects.create(city="Ulm", serves="soup"))
    check(lambda: Diner.objects.create(city="Ulm", serves="soup", seats=3))


def test_a_composite_key() -> None:
    with captured_changes() as changes:
        seat = Seat.objects.create(pk=(1, 2))
    of = serializer_of(Seat, fields=["hall", "number", "taken"])
    assert of(Seat.objects.get(pk=seat.pk), stream_form=True).data == dict(changes[0].new or {})


def test_many_rows_and_the_option_of_the_class() -> None:
    Note.objects.create(title="a")
    of = serializer_of(Note, fields=["title", "owner"], stream_form=True)
    assert of(Note.objects.all(), many=True).data == [{"title": "a", "owner_id": None}]
    assert of(Note.objects.get(), stream_form=False).data == {"title": "a", "owner": None}


def test_what_is_no_column_stays_as_it_is() -> None:
    from rest_framework import serializers

    class WithMore(PolicyModelSerializer):
        shout = serializers.SerializerMethodField()
        name = serializers.CharField(source="title")

        class Meta:
            model = Note
            fields = ["shout", "name", "score"]

        def get_shout(self, note: Note) -> str:
            return note.title.upper()

    note = Note.objects.create(title="a", score=3)
    shown = WithMore(note, stream_form=True).data
    assert shown == {"shout": "A", "title": "a", "score": 3}


def test_input_is_as_ever() -> None:
    serializer = serializer_of(Note)(data={"title": "a", "owner": None}, stream_form=True)
    assert serializer.is_valid(), serializer.errors
    assert serializer.save().title == "a"
