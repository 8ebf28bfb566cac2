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
from rest_framework.serializers import ModelSerializer

from auth_rls.access.querysets import visible
from auth_rls.access.snapshot import PolicySnapshot
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
    many show visible rows only."""

    serializer_related_field = PolicyPrimaryKeyRelatedField


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
