"""Relations in serializers: a request may only point to rows it may see.

To point to a hidden row and be told that it exists, or to find its name among the choices of a
form, would tell of it. Owns narrowing what may be pointed to; whether the new row may be written
is `PolicyPermission`'s.
"""

from __future__ import annotations

from typing import Any

from rest_framework.relations import (
    HyperlinkedRelatedField,
    PrimaryKeyRelatedField,
    SlugRelatedField,
)
from rest_framework.serializers import ModelSerializer

from auth_rls.querysets import visible


class _Narrowed:
    """Only visible rows; none at all where the serializer knows no request."""

    def get_queryset(self) -> Any:
        queryset = super().get_queryset()  # type: ignore[misc]
        request = self.context.get("request")  # type: ignore[attr-defined]
        if queryset is None:
            return None
        return queryset.none() if request is None else visible(queryset, request)


class PolicyPrimaryKeyRelatedField(_Narrowed, PrimaryKeyRelatedField):
    """A PrimaryKeyRelatedField to visible rows."""


class PolicySlugRelatedField(_Narrowed, SlugRelatedField):
    """A SlugRelatedField to visible rows."""


class PolicyHyperlinkedRelatedField(_Narrowed, HyperlinkedRelatedField):
    """A HyperlinkedRelatedField to visible rows."""


class PolicyModelSerializer(ModelSerializer):
    """A ModelSerializer whose relations can only be set to visible rows."""

    serializer_related_field = PolicyPrimaryKeyRelatedField
