"""The models that stored policies may be about and may read.

Staff edit policies, and a policy shows rows. So a stored policy reaches only models that the
project's developers have opened: by publishing their rows, or by name in AUTH_RLS["POLICY_MODELS"],
whose default is the user model. Policies declared in code are written by developers and are not
restricted. Owns the decision; apps that publish rows register a function for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.db import models

from auth_rls import conf
from auth_rls.sql.secret_columns import is_secret

Columns = frozenset[str]

PublishedColumns = Callable[[type[models.Model]], "Columns | None"]
"""Gives the published columns of a model, by column name; None for a model not published."""

_publishers: Final[list[PublishedColumns]] = []


def register(publisher: PublishedColumns) -> None:
    """Add a function that returns the published columns of a model. Adding it again changes
    nothing."""
    if publisher not in _publishers:
        _publishers.append(publisher)


def open_columns(model: type[models.Model]) -> Columns | None:
    """The open columns of `model`: the published ones and, if the model is named in the settings,
    all but those that hold secrets. None for a model that is not open. A proxy counts as the model
    of its table."""
    model = model._meta.concrete_model or model
    found = [named for published in _publishers if (named := published(model)) is not None]
    if model._meta.label_lower in conf.current().policy_models:
        found.append(without_secrets(model))
    columns = frozenset(str(field.column) for field in model._meta.local_concrete_fields)
    return frozenset().union(*found) & columns if found else None


def without_secrets(model: type[models.Model]) -> Columns:
    """The columns of `model` that hold no secrets."""
    fields = model._meta.local_concrete_fields
    return frozenset(str(field.column) for field in fields if not is_secret(field))


def is_open(model: type[models.Model]) -> bool:
    """Whether stored policies may be about `model` and read its rows."""
    return open_columns(model) is not None


def why_closed(model: type[models.Model]) -> str:
    """The message for a model that is not open."""
    return (
        f"{model._meta.label} is not open to policies: publish it, or name it in "
        'AUTH_RLS["POLICY_MODELS"]'
    )
