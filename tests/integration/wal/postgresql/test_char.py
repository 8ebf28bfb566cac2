"""A char(n) column behind a CharField: stream and SQL compare it without its padding."""

from __future__ import annotations

import pytest
from django.db import connection

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.predicate import Not, Test
from auth_rls.sql.columns import columns_of
from auth_rls.sql.compile import condition
from realtime.event_log.event import RowImage
from realtime.wal import triggers
from tests.support.vendors import on_postgresql
from tests.zoo.models import Specimen

pytestmark = [pytest.mark.django_db, on_postgresql]


def test_the_padding_counts_to_neither_the_stream_nor_sql() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE zoo_specimen ALTER COLUMN email TYPE char(50)")
    triggers.reconcile(connection.alias)
    key = Specimen.objects.create(email="secret").pk
    with connection.cursor() as cursor:
        cursor.execute("SELECT new FROM realtime_wal ORDER BY id DESC LIMIT 1")
        (image,) = cursor.fetchone()
    kinds = {name: column.kind for name, column in columns_of(Specimen).items()}
    row = RowImage(image.encode(), kinds)
    assert row["email"] == "secret"
    for op, value in (("exact", "secret"), ("endswith", "t"), ("in", frozenset({"secret", "x"}))):
        for test in (Test("email", op, value), Not(Test("email", op, value))):
            rows = Specimen.objects.filter(pk=key).filter(condition(test, Specimen))
            assert rows.exists() is (matcher(test)(row) is True), test
