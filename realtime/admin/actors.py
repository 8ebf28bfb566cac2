"""Actors of the log as the users that they are, if they are users."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError


def held(field: Any, text: str) -> Any:
    """The value that `text` is for a field of a model. Raises ValueError where the field cannot
    hold it; an actor may be any text, and so may a word of a search."""
    try:
        value = field.to_python(text)
        if isinstance(value, int):
            # Queries with an integer beyond the column's range fail.
            field.run_validators(value)
        hash(value)
    except (ValidationError, TypeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return value


def column_of(field: Any) -> Any:
    """The field itself, or the one that a foreign key (a parent link, a profile) leads to."""
    while field.remote_field is not None:
        field = field.target_field
    return field


def names_of(actors: Collection[str | None]) -> dict[str | None, str]:
    """The names of users for those actors that are primary keys of users."""
    users = get_user_model()
    column = column_of(users._meta.pk)
    keys = set()
    for actor in set(actors) - {None}:
        with suppress(ValueError):
            keys.add(held(column, str(actor)))
    found = users._base_manager.in_bulk(list(keys))
    return {str(pk): user.get_username() for pk, user in found.items()}
