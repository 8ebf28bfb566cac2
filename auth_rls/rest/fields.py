"""Relations in serializers: a request may only point to rows it may see, and is shown no other.

To point to a hidden row and be told that it exists, or to find its name among the choices of a
form, would tell of it. Owns narrowing what may be pointed to; whether the new row may be written
is `PolicyPermission`'s.
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
from rest_framework.serializers import ModelSerializer

from auth_rls.access.querysets import visible
from auth_rls.access.snapshot import PolicySnapshot

_SNAPSHOT = "auth_rls.snapshot"


class PolicyManyRelatedField(ManyRelatedField):
    """Of the rows that a row points to, or that point to it, those that may be seen."""

    def get_attribute(self, instance: Any) -> Any:
        found = super().get_attribute(instance)
        return _seen(self, found) if isinstance(found, models.QuerySet) else found


class _Narrowed:
    """Only visible rows; none at all where the serializer knows no request."""

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
        using = found._state.db
        row: models.QuerySet[Any] = models.QuerySet(type(found), using=using).filter(pk=found.pk)
        return found if _seen(self, row).exists() else None


class PolicyHyperlinkedRelatedField(_Narrowed, HyperlinkedRelatedField):
    """A HyperlinkedRelatedField to visible rows."""


class PolicyModelSerializer(ModelSerializer):
    """A ModelSerializer whose relations can only be set to visible rows, and which shows of
    relations to many only such."""

    serializer_related_field = PolicyPrimaryKeyRelatedField


def _seen(field: Any, queryset: Any) -> Any:
    request = field.context.get("request")
    if request is None:
        return queryset.none()
    # The root serializer's: one list of rows is answered by policies of one moment.
    snapshot = field.context.get(_SNAPSHOT)
    if snapshot is None:
        snapshot = PolicySnapshot.load()
        if isinstance(field.context, dict):
            field.context[_SNAPSHOT] = snapshot
    return visible(queryset, request, snapshot=snapshot)
