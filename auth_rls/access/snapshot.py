"""All policies in force at one moment, parsed, and which users hold their permissions.

Owns the queries: one for the policies, one for each permission and batch of users. A snapshot is
made for one piece of work and thrown away; it is never updated.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models
from django.db.models import Q

from auth_rls.access.past import Past
from auth_rls.policy.database_check import typed
from auth_rls.policy.declared import declared_policies
from auth_rls.policy.definition import (
    Definition,
    PolicyProblem,
    Understood,
    codename_of,
    in_force,
)
from auth_rls.policy.rules import PolicyRule
from auth_rls.predicates.predicate import Predicate, Select
from auth_rls.sql.inheritance import ancestors
from auth_rls.sql.primary import primary
from auth_rls.subjects.subject import Subject

logger = logging.getLogger(__name__)

# Users in one query, well below SQLite's bound on parameters.
_BATCH = 500

# The last logged message of each broken policy of this process: each message is logged once.
_logged: dict[str, str] = {}


class PolicySnapshot:
    """The policies and permissions that `row_predicate` and its siblings use.

    Calls that share a snapshot decide by the policies of one moment.
    """

    def __init__(self, definitions: Iterable[Definition], past: Past | None = None) -> None:
        """Keeps the policies among `definitions` that can be applied, and a denial for each that
        cannot. Makes no query. With `past`, permissions are those of that moment."""
        self.past = past or None
        self._rules: dict[tuple[type[models.Model], str], list[PolicyRule]] = {}
        self._holds: dict[tuple[str, Any], bool] = {}
        # The sets behind selects, filled by `authority.reader`: equal selects are read once.
        self.sets: dict[Select, frozenset[object]] = {}
        # Conditions of rules taken together, filled by `authority`: those who ask alike share one.
        self.conditions: dict[Hashable, tuple[Predicate, bool]] = {}
        for definition in definitions:
            understood = _applied(definition)
            if understood is not None:
                key = understood.model, understood.action
                self._rules.setdefault(key, []).append(understood.rule)

    @classmethod
    def load(cls) -> PolicySnapshot:
        """The enabled policies of the database and those declared in code. One query; the first
        time in a process another one for each database, about its columns."""
        return cls(typed([*stored_definitions(), *declared_policies()]))

    @classmethod
    def load_past(cls, past: Past) -> PolicySnapshot:
        """As `load`, at an earlier moment. Raises PastUnknown."""
        stored = past.definitions() if past else stored_definitions()
        return cls(typed([*stored, *declared_policies()]), past)

    @classmethod
    def load_if_migrated(cls) -> PolicySnapshot:
        """`load`, or only the policies declared in code while the policy table does not exist."""
        from auth_rls.models import Policy

        connection = connections[primary(Policy)]
        if Policy._meta.db_table in connection.introspection.table_names():
            return cls.load()
        return cls(typed(declared_policies()))

    def rules(self, model: type[models.Model], action: str) -> tuple[PolicyRule, ...]:
        """The rules of one action on rows of `model`, in the order in which they were read."""
        return tuple(self._rules.get((model, action), ()))

    def deciding(self, model: type[models.Model], action: str) -> tuple[object, ...]:
        """Everything that decides an action on rows of `model`: the rules on it and on each of its
        ancestors in multi-table inheritance. For a comparison with another snapshot."""
        return tuple(self.rules(each, action) for each in (model, *ancestors(model)))

    def __iter__(self) -> Iterator[tuple[type[models.Model], str, PolicyRule]]:
        for (model, action), rules in self._rules.items():
            for rule in rules:
                yield model, action, rule

    def holds(self, subject: Subject, model: type[models.Model], action: str) -> bool:
        """Whether the subject's user has the Django permission, directly or by group. False,
        without a query, when no rule depends on it."""
        self.prefetch([subject], model, action)
        key = permission_name(model, action), None if subject.user is None else subject.user.pk
        return self._holds.get(key, False)

    def prefetch(
        self, subjects: Iterable[Subject], model: type[models.Model], action: str = "view"
    ) -> None:
        """Reads for all `subjects` at once what `holds` would read for each."""
        if not any(rule.audience == "permission" for rule in self.rules(model, action)):
            return
        permission = permission_name(model, action)
        users = {
            subject.user.pk: subject.user
            for subject in subjects
            if subject.user is not None
            and getattr(subject.user, "is_active", False)
            and (permission, subject.user.pk) not in self._holds
        }
        keys = list(users)
        for start in range(0, len(keys), _BATCH):
            batch = {pk: users[pk] for pk in keys[start : start + _BATCH]}
            holders = _holders(permission, batch, self.past)
            self._holds.update({(permission, pk): pk in holders for pk in batch})

    def permissions(self, without: Collection[str] = ()) -> tuple[str, ...]:
        """The permissions ("app.codename") that some rule depends on, apart from those of the
        actions in `without`."""
        found = {
            permission_name(model, action): None
            for model, action, rule in self
            if rule.audience == "permission" and action not in without
        }
        return tuple(found)

    def learn(self, held: Mapping[str, bool], user_key: Any) -> None:
        """Take from the caller which permissions a user holds, instead of reading them."""
        self._holds.update({(name, user_key): holds for name, holds in held.items()})

    def known(self, permissions: Iterable[str], user_key: Any) -> tuple[bool | None, ...]:
        """Of each of these permissions whether the user holds it; None where that was not read."""
        return tuple(self._holds.get((name, user_key)) for name in permissions)


def held_by(users: Mapping[Any, Any], permissions: Iterable[str]) -> dict[Any, dict[str, bool]]:
    """By primary key, which of these permissions ("app.codename") each of these users holds,
    directly or by group. One query for each permission and 500 users."""
    found: dict[Any, dict[str, bool]] = {pk: {} for pk in users}
    active = {pk: user for pk, user in users.items() if getattr(user, "is_active", False)}
    keys = list(active)
    for name in permissions:
        for pk in users:
            found[pk][name] = False
        for start in range(0, len(keys), _BATCH):
            for pk in _holders(name, {pk: active[pk] for pk in keys[start : start + _BATCH]}, None):
                found[pk][name] = True
    return found


def knows_permissions(model: type[models.Model]) -> bool:
    """Whether the user model has Django's own permissions."""
    try:
        model._meta.get_field("user_permissions")
        model._meta.get_field("groups")
    except FieldDoesNotExist:
        return False
    return True


def permission_name(model: type[models.Model], action: str) -> str:
    """ "app.codename" of the permission for `action` on `model`."""
    return f"{model._meta.app_label}.{codename_of(model, action)}"


def nobody_holds(permissions: Iterable[str]) -> frozenset[str]:
    """Those of these permissions ("app.codename") that no active user holds, directly or by group.
    None of them while there are no users but superusers, who need none, or where the user model has
    permissions of its own kind. A query, and one for each permission."""
    model = get_user_model()
    if not knows_permissions(model):
        return frozenset()
    columns = {field.name for field in model._meta.concrete_fields}
    ordinary = {"is_active": True, "is_superuser": False}
    where = {name: value for name, value in ordinary.items() if name in columns}
    users = model._base_manager.using(primary(model)).filter(**where)
    if not users.exists():
        return frozenset()
    return frozenset(name for name in permissions if not _holding(users, name).exists())


def stored_definitions() -> list[Definition]:
    """The enabled policies in the database. One query."""
    from auth_rls.models import Policy

    policies = Policy.objects.using(primary(Policy)).filter(enabled=True)
    policies = policies.select_related("permission__content_type")
    return [policy.definition() for policy in policies.order_by("pk")]


def _applied(definition: Definition) -> Understood | None:
    understood, problem = in_force(definition)
    if problem is None:
        _logged.pop(definition.name, None)
    else:
        _log_once(definition, problem)
    return understood


def _log_once(definition: Definition, problem: PolicyProblem) -> None:
    if _logged.get(definition.name) == problem.message:
        return
    _logged[definition.name] = problem.message
    logger.error(
        "Policy %r (%s) cannot be used and denies until it is mended: %s: %s",
        definition.name,
        definition.source,
        problem.field,
        problem.message,
        extra={"action": "policy_broken", "policy": definition.name},
    )


def _holders(permission: str, users: dict[Any, Any], past: Past | None) -> set[Any]:
    """The primary keys among `users` whose user holds the permission, now or at that moment."""
    model = get_user_model()
    if not knows_permissions(model):
        # A user model without Django's permission fields decides by its own `has_perm`, if it has
        # one.
        return {
            pk
            for pk, user in users.items()
            if hasattr(user, "has_perm") and user.has_perm(permission)
        }
    if past is not None:
        app_label, _, codename = permission.partition(".")
        return past.holders(app_label, codename, users)
    among = model._base_manager.using(primary(model)).filter(pk__in=list(users))
    return set(_holding(among, permission).values_list("pk", flat=True))


def _holding(users: models.QuerySet[Any], permission: str) -> models.QuerySet[Any]:
    """Those of these users that hold the permission, directly or by group."""
    app_label, _, codename = permission.partition(".")
    meant = Permission.objects.using(primary(users.model)).filter(
        content_type__app_label=app_label, codename=codename
    )
    return users.filter(Q(user_permissions__in=meant) | Q(groups__permissions__in=meant))
