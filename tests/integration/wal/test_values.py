"""What Django stores is what the log shows: every field type, read back as the model has it, and
written with the same bytes by every database."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, models
from django.test import override_settings
from django.test.utils import isolate_apps
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from auth_rls.predicates.kinds import OPAQUE, Kind, from_python
from auth_rls.sql.columns import columns_of
from realtime import publish
from realtime.wal import published
from tests.support.captured_models import (
    canonical,
    cells,
    changes,
    forget,
    recorded,
    tables_of,
    texts,
    written,
)
from tests.support.specimens import BYTES, FULL
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Specimen, Team


def captured(instance: Specimen) -> tuple[dict[str, Any], dict[str, object]]:
    """The newest image of the row, as JSON and as canonical values."""
    change = changes(Specimen)[-1]
    assert change.new is not None and change.key == str(instance.pk)
    return change.new, canonical(change.new, recorded(change.relation_id))


def expected(instance: Specimen) -> dict[str, object]:
    return {
        column.name: from_python(column.kind, stored(getattr(instance, column.attname)))
        for column in columns_of(Specimen).values()
        if column.kind not in OPAQUE
    }


def stored(value: Any) -> Any:
    return value.name if isinstance(value, models.fields.files.FieldFile) else value


@pytest.mark.django_db
def test_every_field_type_reads_back_as_the_instances_own_value() -> None:
    owner = get_user_model().objects.create_user("owner")
    twin = Specimen.objects.create()
    specimen = Specimen.objects.create(**FULL, owner=owner, twin=twin)
    specimen.refresh_from_db()
    image, values = captured(specimen)
    assert {name: values[name] for name in expected(specimen)} == expected(specimen)
    assert image["generated"] == FULL["char"].upper()
    assert (image["owner_id"], image["twin_id"]) == (owner.pk, twin.pk)
    assert image["json"] == {"a": [1, Decimal("2.5"), None, {"b": "c"}]}
    assert image["binary"] == FULL["binary"].hex()
    assert image["moment"] == "2025-11-03T09:32:55.12345+00:00"
    assert image["other_name"] == 7
    assert list(image) == [field.column for field in Specimen._meta.concrete_fields]


@pytest.mark.django_db
def test_every_nullable_field_may_be_null() -> None:
    image, _ = captured(Specimen.objects.create())
    # Django stores a missing file as an empty text.
    assert {name for name, value in image.items() if value is not None} == {"id", "file"}


@pytest.mark.django_db
def test_an_update_shows_values_the_same_way_in_both_images() -> None:
    specimen = Specimen.objects.create(**FULL)
    Specimen.objects.update(small=1)
    change = changes(Specimen)[-1]
    assert change.old == changes(Specimen)[0].new
    assert change.new == {**change.old, "small": 1} if change.old else False
    specimen.delete()
    assert changes(Specimen)[-1].old == change.new


@pytest.mark.django_db
@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinity_is_text_that_reads_back_as_itself(value: float) -> None:
    _, values = captured(Specimen.objects.create(real=value))
    assert values["real"] == value


@pytest.mark.django_db
@pytest.mark.parametrize(("field", "value", "expected"), BYTES)
def test_a_value_is_written_with_the_same_bytes_by_every_database(
    field: str, value: Any, expected: str
) -> None:
    forget()
    specimen = Specimen.objects.create(**{field: value})
    column = Specimen._meta.get_field(field).column
    (_, _, image), *_ = texts(Specimen)
    assert image is not None and cells(image)[column] == expected
    # As a row of an UPDATE and of a DELETE, which other triggers write.
    Specimen.objects.update(small=1)
    specimen.delete()
    _, (_, old, new), (_, gone, _) = texts(Specimen)
    assert old == image
    assert new is not None and gone == new
    assert field == "small" or cells(new)[column] == expected


@pytest.mark.django_db
def test_an_image_has_no_space_between_its_parts() -> None:
    forget()
    team = Team.objects.create(name="a")
    assert texts(Team) == [("INSERT", None, f'{{"id":{team.pk},"name":"a"}}')]


@pytest.mark.django_db
def test_documents_are_nested_whatever_they_hold() -> None:
    document = {"b": [1, 2.5, None, True, {"c": 'd "e" \\ \u00e9'}], "a": {}}
    forget()
    Specimen.objects.create(json=document)
    (change,) = changes(Specimen)
    assert change.new is not None
    assert change.new["json"] == {**document, "b": [1, Decimal("2.5"), *document["b"][2:]]}


@on_postgresql
@pytest.mark.django_db
def test_the_settings_of_a_session_leave_no_trace_in_the_log() -> None:
    row = {key: FULL[key] for key in ("real", "date", "time", "moment", "duration", "binary")}
    forget()
    Specimen.objects.create(**row)
    with connection.cursor() as cursor:
        for name, value in (
            ("TimeZone", "Asia/Tokyo"),
            ("DateStyle", "German, DMY"),
            ("IntervalStyle", "sql_standard"),
            ("extra_float_digits", "-5"),
            ("bytea_output", "escape"),
            ("search_path", "public, pg_catalog"),
            ("standard_conforming_strings", "on"),
            ("xmlbinary", "hex"),
        ):
            cursor.execute("SELECT set_config(%s, %s, true)", [name, value])
    Specimen.objects.create(**row)
    first, second = (cells(new or "") for _, _, new in texts(Specimen))
    assert {**first, "id": ""} == {**second, "id": ""}


@on_postgresql
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("real = 'NaN'", '"NaN"'),
        ("moment = 'infinity'", '"infinity"'),
        ("date = '-infinity'", '"-infinity"'),
        ("moment = '0044-03-15 12:00:00+00 BC'", '"0044-03-15T12:00:00+00:00 BC"'),
        ("duration = '1 year 2 months 3 days 25:00:00'", '"P424DT01H00M00S"'),
        ("duration = '-178000000 years'", '"-P64080000000DT00H00M00S"'),
        ("time = '24:00:00'", '"24:00:00"'),
        ("inet = '10.0.0.0/8'", '"10.0.0.0/8"'),
        ("json = '{\"a\": 1e2}'", '{"a": 100}'),
    ],
)
def test_what_python_cannot_hold_is_captured_as_postgresql_writes_it(
    assignment: str, expected: str
) -> None:
    Specimen.objects.create()
    forget()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE zoo_specimen SET {assignment}")
    ((_, _, image),) = texts(Specimen)
    column = assignment.split(" ")[0]
    assert cells(image or "")[column] == expected


@on_sqlite
@pytest.mark.django_db
def test_a_value_that_does_not_fit_its_column_is_no_error_for_the_writer() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO zoo_specimen (big, moment, uuid, char, date)"
            " VALUES ('many', x'00', 'no uuid', CAST(x'ff41' AS TEXT), 5)"
        )
        cursor.execute("SELECT CAST(new AS BLOB) FROM realtime_wal ORDER BY id DESC LIMIT 1")
        raw = bytes(cursor.fetchone()[0]).decode(errors="replace")
    assert '"big":"many"' in raw
    assert '"moment":"00"' in raw
    assert '"uuid":"no uuid"' in raw
    assert '"char":"\ufffdA"' in raw
    assert '"date":5' in raw


@override_settings(USE_TZ=False)
def test_without_time_zones_a_moment_is_a_timestamp_without_zone() -> None:
    column = next(c for c in published.shape_of(Specimen) if c.name == "moment")
    assert (column.kind, column.type) == (Kind.DATETIME, "timestamp")


@pytest.mark.django_db(transaction=True)
@isolate_apps("tests.zoo")
def test_a_foreign_key_looks_like_the_key_it_points_to() -> None:
    @publish
    class Thing(models.Model):
        id = models.UUIDField(primary_key=True)

        class Meta:
            app_label = "zoo"

    @publish
    class Part(models.Model):
        thing = models.ForeignKey(Thing, models.CASCADE)
        virtual = models.GeneratedField(
            expression=models.F("thing"),
            output_field=models.UUIDField(),
            db_persist=connection.vendor == "postgresql",
        )

        class Meta:
            app_label = "zoo"

    with tables_of(Thing, Part):
        key = uuid.uuid4()
        Part.objects.create(thing=Thing.objects.create(id=key))
        (thing,), (part,) = changes(Thing), changes(Part)
        assert thing.key == str(key)
        assert part.new == {"id": 1, "thing_id": str(key), "virtual": str(key)}


ROWS = st.fixed_dictionaries(
    {},
    optional={
        "boolean": st.booleans(),
        "big": st.integers(-(2**63), 2**63 - 1),
        "real": st.one_of(
            st.floats(-1e50, 1e50).filter(lambda x: x == 0 or abs(x) > 1e-50),
            st.decimals(-(10**6), 10**6, places=6).map(float),
        ),
        # SQLite keeps 15 digits of a decimal, and Django reads back no more.
        "decimal": st.decimals(-(10**10), 10**10, places=4),
        "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        "date": st.dates(),
        "time": st.times(),
        "moment": st.datetimes(timezones=st.just(UTC)),
        "duration": st.timedeltas(timedelta(days=-(10**6)), timedelta(days=10**6)),
        "uuid": st.uuids(),
        "inet": st.ip_addresses().map(str),
    },
)


@pytest.mark.slow
class RoundTrip(TestCase):
    @settings(max_examples=150, deadline=None)
    @given(ROWS)
    def test_any_row_reads_back_as_the_instances_own_values(self, row: dict[str, Any]) -> None:
        forget()
        specimen = Specimen.objects.create(**row)
        specimen.refresh_from_db()
        image, values = captured(specimen)
        assert {name: values[name] for name in expected(specimen)} == expected(specimen)
        ((_, _, text),) = texts(Specimen)
        seen = cells(text or "")
        for name, column in columns_of(Specimen).items():
            value = stored(getattr(specimen, column.attname))
            if column.kind is Kind.FLOAT and long(value):
                assert float(image[name]) == value
            else:
                assert seen[name] == written(column.kind, value, column.scale)


def long(value: float | None) -> bool:
    """Whether a database may write a digit more than it takes. SQLite: of more than 15 digits, or
    of a magnitude that it cannot be sure of. PostgreSQL: where the shortest text lies halfway
    between two numbers, which only happens beyond 2**53."""
    if value is None or not value or math.isinf(value):
        return False
    if connection.vendor == "postgresql" and abs(value) > 2**53:
        return True
    return float(f"{value:.15g}") != value or not 1e-7 <= abs(value) <= 1e22
