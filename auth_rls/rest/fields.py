"""Relations in serializers: a request can only set and see relations to rows that it may view.

An error that differs for a hidden row and a missing one, or a name among the choices of a form,
would disclose the row. Owns narrowing the targets of relations; `PolicyPermission` decides whether
the new row may be written.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from rest_framework.relations import (
    MANY_RELATION_KWARGS,
    HyperlinkedRelatedField,
    ManyRelatedField,
    PrimaryKeyRelatedField,
    SlugRelatedField,
)
from rest_framework.serializers import ALL_FIELDS, BaseSerializer, ModelSerializer

from auth_rls.access.querysets import visible
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.rest.stream_form import cell, column_of_source, parent_keys
from auth_rls.sql.primary import primary

_SNAPSHOT = "auth_rls.snapshot"


class PolicyManyRelatedField(ManyRelatedField):
    """A relation to many rows, narrowed to those that the request may view."""

    def get_attribute(self, instance: Any) -> Any:
        found = super().get_attribute(instance)
        return _seen(self, found) if isinstance(found, models.QuerySet) else found


class _Narrowed:
    """Narrows the targets to visible rows; to none where the serializer has no request."""

    @classmethod
    def many_init(cls, *args: Any, **kwargs: Any) -> PolicyManyRelatedField:
        named = {key: value for key, value in kwargs.items() if key in MANY_RELATION_KWARGS}
        return PolicyManyRelatedField(child_relation=cls(*args, **kwargs), **named)

    def get_queryset(self) -> Any:
        queryset = super().get_queryset()  # type: ignore[misc]
        return None if queryset is None else _seen(self, queryset)


class PolicyPrimaryKeyRelatedField(_Narrowed, PrimaryKeyRelatedField):
    """A PrimaryKeyRelatedField to visible rows."""


class PolicySlugRelatedField(_Narrowed, SlugRelatedField):
    """A SlugRelatedField to visible rows. The slug of a hidden one is shown as null."""

    def get_attribute(self, instance: Any) -> Any:
        found = super().get_attribute(instance)
        if not isinstance(found, models.Model):
            return found
        using = primary(type(found), found)
        row: models.QuerySet[Any] = models.QuerySet(type(found), using=using).filter(pk=found.pk)
        return found if _seen(self, row).exists() else None


class PolicyHyperlinkedRelatedField(_Narrowed, HyperlinkedRelatedField):
    """A HyperlinkedRelatedField to visible rows."""


class PolicyModelSerializer(ModelSerializer):
    """A ModelSerializer whose relations can be set to visible rows only, and whose relations to
    many show visible rows only.

    With `stream_form=True`, as an argument or in Meta, it shows the model's columns as the stream
    does, under their column names: see docs/how-to/rest.md. What is no column of the model's table
    stays as it is, and so does what a request may send.
    """

    serializer_related_field = PolicyPrimaryKeyRelatedField

    def __init__(self, *args: Any, stream_form: bool | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if stream_form is None:
            stream_form = getattr(getattr(self, "Meta", None), "stream_form", False)
        #: Whether rows are shown in the stream's form.
        self.stream_form = bool(stream_form)

    def to_representation(self, instance: Any) -> Any:
        shown = super().to_representation(instance)
        if not self.stream_form or not isinstance(instance, models.Model):
            return shown
        row = dict(
            _as_streamed(instance, name, field, shown[name])
            for name, field in self.fields.items()
            if name in shown
        )
        if getattr(self.Meta, "fields", None) == ALL_FIELDS:
            row |= {key.name: cell(key, instance) for key in parent_keys(type(instance))}
        return row


def _as_streamed(instance: models.Model, name: str, field: Any, shown: Any) -> tuple[str, Any]:
    """The key and the value of a serializer's field in the stream's form, where it has one."""
    if isinstance(field, BaseSerializer):
        return name, shown
    column = column_of_source(type(instance), field.source)
    return (name, shown) if column is None else (column.name, cell(column, instance))


def _seen(field: Any, queryset: Any) -> Any:
    request = field.context.get("request")
    if request is None:
        return queryset.none()
    # Kept in the root serializer, so that one list of rows is shown by policies of one moment.
    snapshot = field.context.get(_SNAPSHOT)
    if snapshot is None:
        snapshot = PolicySnapshot.load()
        if isinstance(field.context, dict):
            field.context[_SNAPSHOT] = snapshot
    return visible(queryset, request, snapshot=snapshot)
