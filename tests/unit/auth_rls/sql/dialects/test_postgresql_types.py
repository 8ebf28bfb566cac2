"""Which types of PostgreSQL may stand behind which fields."""

from __future__ import annotations

import pytest
from django.db import models

from auth_rls.predicates.fit import EXACT, Fit
from auth_rls.sql.columns import Column, column_of
from auth_rls.sql.dialects.base import StoredType
from auth_rls.sql.dialects.postgresql_types import fit_of


def column(field: models.Field) -> Column:
    field.set_attributes_from_name("c")
    return column_of(field)


def fit(field: models.Field, type_: str, *, blurred: bool = False) -> Fit:
    return fit_of(column(field), StoredType(type_, type_, blurred))


@pytest.mark.parametrize(
    "field, type_",
    [
        (models.CharField(), "character varying(10)"),
        (models.TextField(), "enum"),
        (models.IntegerField(), "bigint"),
        (models.DecimalField(max_digits=9, decimal_places=2), "numeric(12,2)"),
        (models.DecimalField(), "numeric"),
        (models.DateTimeField(), "timestamp with time zone"),
        (models.DateTimeField(), "timestamp(6) with time zone"),
        (models.JSONField(), "jsonb"),
    ],
)
def test_the_usual_types_are_compared_as_they_are(field: models.Field, type_: str) -> None:
    assert fit(field, type_) == EXACT


def test_texts_of_other_rules_are_told_apart() -> None:
    assert fit(models.CharField(), "citext") == Fit(ignores_case=True)
    assert fit(models.CharField(), "character(10)") == Fit(padded=True)


@pytest.mark.parametrize(
    "field, type_, wanted",
    [
        (models.CharField(), "money", "make the column character varying or text"),
        (models.DecimalField(max_digits=9, decimal_places=2), "numeric(12,4)", "2 decimal places"),
        (models.DateTimeField(), "timestamp(0) with time zone", "timestamp with time zone"),
        (models.FloatField(), "real", "double precision"),
    ],
)
def test_others_are_refused_with_the_type_that_would_do(
    field: models.Field, type_: str, wanted: str
) -> None:
    problem = fit(field, type_).problem
    assert f"the database has c as {type_}" in problem
    assert wanted in problem


def test_a_collation_that_blurs_must_be_named_by_the_field() -> None:
    assert "db_collation" in fit(models.CharField(), "text", blurred=True).problem
    named = models.CharField(db_collation="blurred")
    assert fit(named, "text", blurred=True) == EXACT
