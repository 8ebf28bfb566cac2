"""Where decisions are read: the database that a model's rows are written to.

Routers may send reads to a copy that lags behind. A policy that was taken back must not go on
there, so what decides is never read from a copy.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import models, router

_Q = TypeVar("_Q", bound=models.QuerySet[Any])


def primary(model: type[models.Model], instance: models.Model | None = None) -> str:
    """The alias of the database that rows of `model` are written to; for an instance that names
    another, the one that it came from or goes to."""
    if instance is None:
        return router.db_for_write(model)
    return router.db_for_write(model, instance=instance)


def at_primary(queryset: _Q) -> _Q:
    """The queryset on the primary, unless its caller named a database by `using`."""
    named = queryset._db is not None  # type: ignore[attr-defined]
    alias = primary(queryset.model)
    return queryset if named or alias == queryset.db else queryset.using(alias)
