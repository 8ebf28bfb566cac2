"""Multi-table inheritance: a row of a child model is a row of each of its parents, too.

Owns the links between their tables. It reads model classes and never the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import models

from auth_rls.sql.columns import concrete


@dataclass(frozen=True, slots=True)
class ParentLink:
    """The link from a child's row to its row of `parent`: `field` is the child's, `target` the
    parent's field that it points to."""

    parent: type[models.Model]
    field: models.Field[Any, Any]
    target: models.Field[Any, Any]


def parent_links(model: type[models.Model]) -> tuple[ParentLink, ...]:
    """The links of the model's own table to those of its direct parents."""
    model = concrete(model)
    own = model._meta.local_concrete_fields
    found = {}
    for parent, field in model._meta.parents.items():
        if field is not None and field in own:
            link: Any = field
            found[concrete(parent)] = ParentLink(concrete(parent), link, link.target_field)
    return tuple(found.values())


def ancestors(model: type[models.Model]) -> tuple[type[models.Model], ...]:
    """Every model that a row of `model` is a row of beside its own, parents before theirs."""
    found: dict[type[models.Model], None] = {}
    for link in parent_links(model):
        found[link.parent] = None
        found.update(dict.fromkeys(ancestors(link.parent)))
    return tuple(found)


def descendants(model: type[models.Model]) -> tuple[type[models.Model], ...]:
    """Every model with a table of its own whose rows are rows of `model`, too."""
    model = concrete(model)
    return tuple(
        each for each in apps.get_models() if concrete(each) is each and model in ancestors(each)
    )


def has_key(instance: Any) -> bool:
    """Whether a model instance has its primary key, every column of a composite one."""
    return bool(instance._is_pk_set())


def key_in(instance: models.Model, model: type[models.Model]) -> Any:
    """The primary key of the instance's row of `model`, which is its own model or an ancestor of
    that; None where it has none yet."""
    key = getattr(instance, str(model._meta.pk.attname), None)
    if key is not None:
        return key
    # Only the child's link may have been set.
    for each in (concrete(type(instance)), *ancestors(type(instance))):
        for link in parent_links(each):
            if link.parent is model and link.target.primary_key:
                key = getattr(instance, str(link.field.attname), None)
                if key is not None:
                    return key
    return None
