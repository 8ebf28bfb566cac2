"""The model, serializer and route of a view.

Decides nothing.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from rest_framework.mixins import CreateModelMixin
from rest_framework.serializers import BaseSerializer, ListSerializer

from auth_rls.sql.columns import concrete


def model_of(view: Any) -> type[models.Model]:
    """The model whose policies guard the view. Raises ImproperlyConfigured for a view without a
    queryset, because a view without a known model must not be open."""
    queryset = getattr(view, "queryset", None)
    if queryset is None and hasattr(view, "get_queryset"):
        try:
            queryset = view.get_queryset()
        except AssertionError:  # REST framework raises it for a view without a queryset.
            queryset = None
    model = getattr(queryset, "model", None)
    if model is None:
        raise ImproperlyConfigured(
            f"{type(view).__name__} has no queryset, so PolicyPermission cannot tell which "
            "policies guard it: set `queryset` or define `get_queryset()`."
        )
    return concrete(model)


def serializer_of(view: Any) -> Any:
    """A serializer made by the view, or None where the view has none."""
    if not hasattr(view, "get_serializer"):
        return None
    try:
        serializer = view.get_serializer()
    except AssertionError:
        return None
    return serializer.child if isinstance(serializer, ListSerializer) else serializer


def written_models(serializer: Any) -> frozenset[type[models.Model]]:
    """The models of a serializer and of the writable serializers nested in it."""
    if isinstance(serializer, ListSerializer):
        serializer = serializer.child
    if not isinstance(serializer, BaseSerializer):
        return frozenset()
    model = getattr(getattr(serializer, "Meta", None), "model", None)
    found = frozenset() if model is None else frozenset({concrete(model)})
    for field in getattr(serializer, "fields", {}).values():
        if not field.read_only:
            found |= written_models(field)
    return found


def is_detail(view: Any) -> bool:
    """Whether the route names one object."""
    lookup = getattr(view, "lookup_url_kwarg", None) or getattr(view, "lookup_field", None)
    return lookup in getattr(view, "kwargs", {})


def is_creating(view: Any) -> bool:
    """Whether a POST to the view creates an object by REST framework's own mixin."""
    return (
        isinstance(view, CreateModelMixin)
        and getattr(view, "action", "create") == "create"
        and not is_detail(view)
    )
