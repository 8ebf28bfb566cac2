"""Policies, users and permissions as they were at an earlier moment.

The database has them as they are now. The caller passes the rows of these tables that have changed
since, as they were then. Everything here makes queries; run it in the transaction in which the
changes were read, or a later change would be taken for an earlier state.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import models

from auth_rls.policy.definition import Definition
from auth_rls.sql.columns import value_field
from auth_rls.sql.primary import primary
from auth_rls.sql.rows import loaded

#: A row as it was, by column; None if it did not exist.
Then = Mapping[str, Any] | None


class PastUnknown(Exception):
    """The earlier state of a row cannot be known: a column that decides was not recorded."""


class Past:
    """The rows that have changed since, as they were, by model and primary key. All other rows are
    as the database has them now."""

    def __init__(self, rows: Mapping[type[models.Model], Mapping[Any, Then]]) -> None:
        self._rows = {
            model: {_python(model._meta.pk, key): row for key, row in found.items()}
            for model, found in rows.items()
            if found
        }

    def __bool__(self) -> bool:
        return bool(self._rows)

    def definitions(self) -> list[Definition]:
        """The policies that were enabled. Raises PastUnknown."""
        from auth_rls.models import Policy

        now = {policy.pk: policy for policy in Policy._base_manager.using(primary(Policy))}
        found: list[Any] = [policy for policy in now.values() if policy.pk not in self._of(Policy)]
        for pk, row in self._of(Policy).items():
            if row is not None:
                policy = _made(Policy, row)
                policy.pk = pk
                policy.name = now[pk].name if pk in now else f"policy {pk}"
                found.append(policy)
        enabled = [policy for policy in found if policy.enabled]
        permissions = self._permissions({policy.permission_id for policy in enabled})
        definitions = []
        for policy in sorted(enabled, key=lambda policy: policy.pk):
            permission = permissions.get(policy.permission_id)
            if permission is not None:
                policy.permission = permission
                definitions.append(policy.definition())
        return definitions

    def users(self, now: Mapping[Any, Any], keys: Collection[Any]) -> dict[Any, Any]:
        """The users with these primary keys as they were; `now` are the users that exist now."""
        model = get_user_model()
        found = {key: now[key] for key in keys if key in now}
        for pk, row in self._of(model).items():
            if pk not in keys:
                continue
            if row is None:
                # The user was created since, and had no rights then.
                if pk in found:
                    found[pk] = _without_rights(found[pk])
                continue
            user = copy.copy(found[pk]) if pk in found else model(pk=pk)
            for name, value in _values(model, row).items():
                setattr(user, name, value)
            found[pk] = user
        return found

    def holders(self, app_label: str, codename: str, users: Collection[Any]) -> set[Any]:
        """The primary keys among `users` whose user had the permission."""
        user = get_user_model()
        meant = self._meant(app_label, codename)
        direct: Any = user._meta.get_field("user_permissions")
        groups: Any = user._meta.get_field("groups")
        having = {
            group
            for group, permission in self._pairs(
                Group.permissions.through, "group_id", "permission_id", permission_id__in=meant
            )
            if permission in meant
        }
        return self._links(direct, users, meant) | self._links(groups, users, having)

    def _links(self, field: Any, users: Collection[Any], wanted: Collection[Any]) -> set[Any]:
        """The primary keys among `users` that a link table of the user model joins with one of the
        keys in `wanted`."""
        through = field.remote_field.through
        own = through._meta.get_field(field.m2m_field_name()).attname
        theirs = through._meta.get_field(field.m2m_reverse_field_name()).attname
        here = {f"{own}__in": list(users)}
        pairs = self._pairs(through, own, theirs, **here)
        return {user for user, key in pairs if user in users and key in wanted}

    def _pairs(self, through: Any, one: str, other: str, **where: Any) -> list[tuple[Any, Any]]:
        """Two columns of the rows as they were. Unchanged rows are those that `where` chooses."""
        rows = (
            through._base_manager.using(primary(through))
            .filter(**where)
            .values_list("pk", one, other)
        )
        changed = self._of(through)
        found = [(left, right) for pk, left, right in rows if pk not in changed]
        for row in changed.values():
            if row is not None:
                made = _made(through, row)
                found.append((getattr(made, one), getattr(made, other)))
        return found

    def _meant(self, app_label: str, codename: str) -> set[Any]:
        """The primary keys of the permissions that were called so."""
        changed = self._of(Permission)
        now = Permission._base_manager.using(primary(Permission)).filter(codename=codename)
        keys = {pk for pk in now.values_list("pk", flat=True) if pk not in changed}
        return {
            pk
            for pk, permission in self._permissions(keys | {*changed}).items()
            if (permission.content_type.app_label, permission.codename) == (app_label, codename)
        }

    def _permissions(self, keys: Collection[Any]) -> dict[Any, Any]:
        """The permissions with these primary keys, with their content types. Raises PastUnknown."""
        found = self._were(Permission, keys)
        types = self._were(ContentType, {each.content_type_id for each in found.values()})
        for permission in found.values():
            if permission.content_type_id not in types:
                raise PastUnknown(f"content type {permission.content_type_id}")
            permission.content_type = types[permission.content_type_id]
        return found

    def _were(self, model: Any, keys: Collection[Any]) -> dict[Any, Any]:
        """The instances with these primary keys, by key; none for a row that did not exist."""
        changed = self._of(model)
        unchanged = [key for key in keys if key not in changed]
        found: dict[Any, Any] = model._base_manager.using(primary(model)).in_bulk(unchanged)
        for key in keys:
            row = changed.get(key)
            if row is not None:
                found[key] = _made(model, row)
        return found

    def _of(self, model: Any) -> Mapping[Any, Then]:
        return self._rows.get(model, {})


def _without_rights(user: Any) -> Any:
    bare = copy.copy(user)
    if any(field.name == "is_superuser" for field in user._meta.concrete_fields):
        bare.is_superuser = False
    return bare


def _made(model: Any, row: Mapping[str, Any]) -> Any:
    """An instance with the columns of the row. Raises PastUnknown where one is missing."""
    values = _values(model, row)
    missing = {field.attname for field in model._meta.concrete_fields} - values.keys()
    if missing - {"name"}:
        raise PastUnknown(f"{', '.join(sorted(missing))} of {model._meta.label}")
    return model(**values)


def _values(model: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    fields = {field.column: field for field in model._meta.concrete_fields}
    return {
        fields[column].attname: _python(fields[column], value)
        for column, value in row.items()
        if column in fields
    }


def _python(field: Any, value: Any) -> Any:
    return value if isinstance(value_field(field), models.JSONField) else loaded(field, value)


def models_of_past() -> Iterable[type[models.Model]]:
    """The tables whose rows a `Past` is made of."""
    from auth_rls.models import Policy

    user = get_user_model()
    yield from (Policy, Permission, ContentType, user, Group.permissions.through)
    for name in ("groups", "user_permissions"):
        through = getattr(getattr(user, name, None), "through", None)
        if through is not None:
            yield through
