"""Sets of policies that belong together, and the two ways to put one in force.

Owns declaring and storing a set. `shapes.py` makes sets.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, router, transaction

from auth_rls.policy.declared import declare
from auth_rls.policy.definition import Definition


class ShapeError(ValueError):
    """Arguments that do not fit the models, or a policy that cannot be stored."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Policies that belong together. They are in force after `declare` or `create`."""

    model: type[models.Model]
    definitions: tuple[Definition, ...]

    def declare(self) -> None:
        """Put the policies in force as policies in code. For a policies.py; see
        `declare_policy`."""
        source = sys._getframe(1).f_globals.get("__name__", "code")
        for definition in self.definitions:
            declare(replace(definition, source=source))

    def create(self, apps: Any = None, *, using: str | None = None) -> list[Any]:
        """Store the policies as rows of `Policy`, all or none, and return the rows.

        In a migration pass its `apps` (and its connection's alias as `using`): permissions that
        `migrate` has not created yet are then created here. Raises ShapeError if a name is taken
        or, outside a migration, if a policy cannot be used.
        """
        if apps is None:
            from django.apps import apps as registry
        else:
            registry = apps
        policy_model = registry.get_model("auth_rls", "Policy")
        alias = using or router.db_for_write(policy_model)
        with transaction.atomic(using=alias):
            return [
                self._create(definition, registry, policy_model, alias, checked=apps is None)
                for definition in self.definitions
            ]

    def _create(
        self, definition: Definition, registry: Any, policy_model: Any, alias: str, checked: bool
    ) -> Any:
        policies = policy_model._default_manager.using(alias)
        if policies.filter(name=definition.name).exists():
            raise ShapeError(f"There is a policy named {definition.name!r} already.")
        policy = policy_model(
            name=definition.name,
            permission=self._permission(definition, registry, alias, make=not checked),
            audience=definition.audience,
            mode=definition.mode,
            using=definition.using,
            with_check=definition.with_check,
        )
        if checked:
            try:
                policy.full_clean(validate_unique=False)
            except ValidationError as error:
                raise ShapeError(f"{definition.name}: {' '.join(error.messages)}") from None
        policy.save(using=alias)
        return policy

    def _permission(self, definition: Definition, registry: Any, alias: str, make: bool) -> Any:
        app_label, _, codename = definition.permission.partition(".")
        types = registry.get_model("contenttypes", "ContentType").objects.using(alias)
        permissions = registry.get_model("auth", "Permission").objects.using(alias)
        options = self.model._meta
        key = {"app_label": app_label, "model": options.model_name}
        found = permissions.filter(
            codename=codename, **{f"content_type__{name}": value for name, value in key.items()}
        ).first()
        if found is not None:
            return found
        if not make:
            raise ShapeError(f"There is no permission {definition.permission}; run migrate first.")
        action = codename.partition("_")[0]
        content_type, _ = types.get_or_create(**key)
        return permissions.create(
            content_type=content_type,
            codename=codename,
            name=f"Can {action} {options.verbose_name_raw}",
        )
