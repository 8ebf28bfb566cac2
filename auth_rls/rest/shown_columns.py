"""The columns that a view shows: the only ones that ordering and search may use.

A list that can be ordered or searched by a column discloses the column's values, by the position of
a row or by its presence, even if the column is not shown.

Owns one name for each column, for all its spellings in serializers and filters. Makes no query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from rest_framework.relations import ManyRelatedField, SlugRelatedField, StringRelatedField
from rest_framework.serializers import BaseSerializer, ListSerializer

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A column at the end of a path through relations. `relations` and `column` are the names that
    lookups take (a column's attname), `models` the models that the relations lead to, `rest` the
    names after the column."""

    relations: Path
    column: str
    models: tuple[type[models.Model], ...] = ()
    rest: Path = ()

    @property
    def path(self) -> Path:
        return (*self.relations, self.column)


def resolve(model: type[models.Model], names: Path) -> Target | None:
    """The column that the names lead to, or None. A relation is named by field, accessor or query
    name; after the column may come the transforms of a lookup."""
    relations: list[str] = []
    reached: list[type[models.Model]] = []
    for index, name in enumerate(names):
        related = _relation(model, name) if index + 1 < len(names) else None
        if related is not None:
            relations.append(related[0])
            model = related[1]
            reached.append(model)
            continue
        column = _column(model, name)
        if column is None:
            return None
        return Target(tuple(relations), column, tuple(reached), names[index + 1 :])
    return None


def shown_columns(model: type[models.Model], serializer: Any) -> frozenset[Path]:
    """The paths of all columns that a serializer of `model` puts into its answers."""
    found = set()
    for path in _sources(serializer):
        target = resolve(model, path)
        if target is not None and not target.rest:
            found.add(target.path)
    return frozenset(found)


def shown_names(serializer: Any) -> frozenset[str]:
    """The names that the serializer takes from the instance itself, annotations among them."""
    return frozenset(path[0] for path in _sources(serializer) if len(path) == 1)


def _sources(serializer: Any) -> set[Path]:
    if isinstance(serializer, ListSerializer):
        serializer = serializer.child
    found: set[Path] = set()
    for field in getattr(serializer, "fields", {}).values():
        if field.write_only:
            continue
        path: Path = () if field.source == "*" else tuple(field.source.split("."))
        inner = field.child_relation if isinstance(field, ManyRelatedField) else field
        if isinstance(inner, BaseSerializer):
            found |= {path + below for below in _sources(inner)}
        elif isinstance(inner, SlugRelatedField):
            found.add(path + tuple(inner.slug_field.split("__")))
        elif path and not isinstance(inner, StringRelatedField):
            found.add(path)
    return found


def _relation(model: type[models.Model], name: str) -> tuple[str, type[models.Model]] | None:
    for field in model._meta.get_fields(include_hidden=False):
        names = {field.name}
        if isinstance(field, models.ForeignObjectRel):
            names.add(field.get_accessor_name() or field.name)
        if name in names and field.is_relation and isinstance(field.related_model, type):
            return field.name, field.related_model
    return None


def _column(model: type[models.Model], name: str) -> str | None:
    if name == "pk":
        return str(model._meta.pk.attname)
    try:
        field: Any = model._meta.get_field(name)
    except FieldDoesNotExist:
        return next((f.attname for f in model._meta.concrete_fields if f.attname == name), None)
    return field.attname if getattr(field, "concrete", False) and field.column else None
