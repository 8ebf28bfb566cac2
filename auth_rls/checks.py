"""System checks of policies and settings.

Owns the messages and their ids. Stored policies are read only when `check` is given a database
(`manage.py check --database default`, and `migrate` before it starts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import checks
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import DatabaseError, connections, router
from django.db.migrations.executor import MigrationExecutor
from django.db.models import UniqueConstraint
from django.utils.encoding import force_bytes
from django.utils.module_loading import import_string

from auth_rls import conf
from auth_rls.access.snapshot import (
    PolicySnapshot,
    nobody_holds,
    permission_name,
    stored_definitions,
)
from auth_rls.policy.choices import beside_choices
from auth_rls.policy.database_check import problem_of
from auth_rls.policy.declared import declared_policies
from auth_rls.policy.definition import Definition, PolicyProblem, understand
from auth_rls.sql.columns import model_named
from auth_rls.sql.inheritance import ancestors
from auth_rls.sql.primary import primary

# The size of SHA-256's output; RFC 7518 forbids shorter keys.
_SHORTEST_SECRET = 32

_HINT = (
    "Until it is mended it denies: a permissive policy grants nothing, a restrictive one denies "
    "all. One that the database cannot evaluate makes all policies of its permission deny."
)


@checks.register(checks.Tags.models)
def check_declared(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.E001 for every policy declared in code that cannot be used."""
    return _declared_errors(declared_policies(), _problem)


@checks.register(checks.Tags.database)
def check_stored(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """auth_rls.E001 for every enabled stored policy that cannot be used, and for every declared
    one that the database cannot evaluate. While migrations are pending, which may mend them,
    auth_rls.W004 for stored policies instead."""
    from auth_rls.models import Policy

    found: list[checks.CheckMessage] = []
    if _settings_error() is not None:
        return found  # `check_settings` reports the error.
    for alias in databases or ():
        connection = connections[alias]
        if not router.allow_migrate_model(alias, Policy):
            continue
        if Policy._meta.db_table not in connection.introspection.table_names():
            continue
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if any(migration.app_label == Policy._meta.app_label for migration, _ in pending):
            continue  # The table does not match the model yet.
        policies = Policy.objects.using(alias).filter(enabled=True)
        for policy in policies.select_related("permission__content_type"):
            problem = problem_of(policy.definition(), databases)
            if problem is None:
                continue
            text = f"The policy {policy.name!r} cannot be used: {_words(problem)}"
            if pending:
                found.append(checks.Warning(text, hint=_HINT, obj=policy, id="auth_rls.W004"))
            else:
                found.append(checks.Error(text, hint=_HINT, obj=policy, id="auth_rls.E001"))
        if not pending:
            # `check_declared` reports those that the models do not allow.
            usable = [each for each in declared_policies() if _problem(each) is None]
            found += _declared_errors(usable, lambda each: problem_of(each, databases))
    return found


@checks.register(checks.Tags.database)
def check_parents(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """auth_rls.W008 for a child model in multi-table inheritance whose policies grant nothing,
    because a parent has none for the same action."""
    from auth_rls.models import Policy

    if _settings_error() is not None or primary(Policy) not in (databases or ()):
        return []
    try:
        snapshot = PolicySnapshot.load_if_migrated()
    except DatabaseError:
        return []  # no database to speak of: Django's own checks and commands say so
    granting = {(model, action) for model, action, rule in snapshot if rule.mode == "permissive"}
    return [
        checks.Warning(
            f"Policies on {model._meta.label} grant no {action}: its rows are rows of "
            f"{parent._meta.label}, too, which has no policy that grants {action}.",
            hint=f"Add a policy for {permission_name(parent, action)}. One on a parent counts for "
            "all rows of the parent, whatever child they belong to.",
            obj=model,
            id="auth_rls.W008",
        )
        for model, action in sorted(granting, key=lambda item: (item[0]._meta.label, item[1]))
        for parent in ancestors(model)
        if (parent, action) not in granting
    ]


@checks.register(checks.Tags.database)
def check_holders(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """auth_rls.W009 for a permission whose policies are for its holders, and that nobody holds."""
    from auth_rls.models import Policy

    if _settings_error() is not None or primary(Policy) not in (databases or ()):
        return []
    try:
        snapshot = PolicySnapshot.load_if_migrated()
        named: dict[str, list[str]] = {}
        for model, action, rule in snapshot:
            if rule.audience == "permission" and rule.mode == "permissive":
                named.setdefault(permission_name(model, action), []).append(rule.name)
        unheld = nobody_holds(named) if named else frozenset()
    except DatabaseError:
        return []  # no database to speak of: Django's own checks and commands say so
    return [
        checks.Warning(
            f"Nobody holds {permission}, so it grants nothing to anybody: its policies "
            f"({', '.join(names)}) are for those who hold it.",
            hint="Give the permission to a group or to users, or choose another audience for the "
            "policy: authenticated, or anyone.",
            id="auth_rls.W009",
        )
        for permission, names in sorted(named.items())
        if permission in unheld
    ]


@checks.register(checks.Tags.models)
def check_declared_choices(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.W010 for a policy declared in code that compares a column with a value that is none
    of its field's choices."""
    return _choice_warnings(declared_policies())


@checks.register(checks.Tags.database)
def check_stored_choices(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """auth_rls.W010 for an enabled stored policy that compares a column with a value that is none
    of its field's choices."""
    from auth_rls.models import Policy

    if _settings_error() is not None or primary(Policy) not in (databases or ()):
        return []
    try:
        if Policy._meta.db_table not in connections[primary(Policy)].introspection.table_names():
            return []
        return _choice_warnings(stored_definitions())
    except DatabaseError:
        return []  # no database to speak of: Django's own checks and commands say so


def _choice_warnings(definitions: Iterable[Definition]) -> list[checks.CheckMessage]:
    return [
        checks.Warning(
            f"The policy {definition.name!r}: {sentence}",
            hint="Write a value of the choices, or add this one to them.",
            id="auth_rls.W010",
        )
        for definition in definitions
        if _problem(definition) is None
        for sentence in beside_choices(understand(definition))
    ]


def _declared_errors(
    definitions: Iterable[Definition], ask: Callable[[Definition], PolicyProblem | None]
) -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    for definition in definitions:
        problem = ask(definition)
        if problem is not None:
            text = (
                f"The policy {definition.name!r} declared in {definition.source} cannot be used: "
                f"{_words(problem)}"
            )
            found.append(checks.Error(text, hint=_HINT, id="auth_rls.E001"))
    return found


def _words(problem: PolicyProblem) -> str:
    """A problem in one line, with the database's own message: operators run checks."""
    detail = f" ({problem.detail})" if problem.detail else ""
    return f"{problem.field}: {problem.message}{detail}"


def _problem(definition: Definition) -> PolicyProblem | None:
    try:
        understand(definition)
    except PolicyProblem as problem:
        return problem
    return None


@checks.register(checks.Tags.security)
def check_backend(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.W002 if `user.has_perm(permission, obj)` does not apply the policies."""
    from auth_rls.backends import PolicyBackend

    for path in settings.AUTHENTICATION_BACKENDS:
        try:
            backend = import_string(path)
        except ImportError:
            continue  # Django reports the backend itself at the first login.
        if isinstance(backend, type) and issubclass(backend, PolicyBackend):
            return []
    return [
        checks.Warning(
            "PolicyBackend is not among AUTHENTICATION_BACKENDS, so has_perm() with an object "
            "does not ask the policies.",
            hint='Add "auth_rls.backends.PolicyBackend" behind ModelBackend.',
            id="auth_rls.W002",
        )
    ]


@checks.register(checks.Tags.security)
def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.E003 for an AUTH_RLS that cannot be used, auth_rls.W003 for a secret that is too
    short."""
    error = _settings_error()
    if error is not None:
        return [checks.Error(error, id="auth_rls.E003")]
    current = conf.current()
    if any(len(key.material) < _SHORTEST_SECRET for key in current.secrets):
        return [
            checks.Warning(
                f"The secret that checks tokens is shorter than {_SHORTEST_SECRET} bytes and "
                "could be guessed from any token.",
                hint='Set AUTH_RLS["JWT_KEY"], or SECRET_KEY, to a long random text.',
                id="auth_rls.W003",
            )
        ]
    return []


@checks.register(checks.Tags.security, deploy=True)
def check_own_key(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.W005 where tokens are signed with SECRET_KEY, for `check --deploy`."""
    if _settings_error() is not None:
        return []
    django_keys = {settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS}
    shared = {force_bytes(key) for key in django_keys}
    if not any(key.material in shared for key in conf.current().secrets):
        return []
    return [
        checks.Warning(
            "Tokens are signed with Django's SECRET_KEY: a program that has to sign tokens could "
            "sign sessions and password resets with it too.",
            hint='Set AUTH_RLS["JWT_KEY"] to a random text of its own. Tokens in use end with it.',
            id="auth_rls.W005",
        )
    ]


@checks.register(checks.Tags.security)
def check_issuers(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.W006 for keys of another issuer, if its tokens for any application are accepted."""
    if _settings_error() is not None or conf.current().key_source is None:
        return []
    required = {name for name, _ in conf.current().required_claims}
    missing = [
        key
        for key, names in (
            # Some issuers name the application in a claim other than `aud`.
            ("JWT_AUDIENCE", conf.current().audiences or required & {"aud", "azp", "client_id"}),
            ("JWT_ISSUER", conf.current().issuers),
        )
        if not names
    ]
    if not missing:
        return []
    return [
        checks.Warning(
            "AUTH_RLS takes tokens that keys of another issuer have signed, whatever "
            "they were made for.",
            hint=f"Set {' and '.join(missing)}, so that only tokens for this application count.",
            id="auth_rls.W006",
        )
    ]


@checks.register(checks.Tags.models)
def check_user_field(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.E004 for a USER_FIELD that the user model does not have, auth_rls.W007 for one that
    several users may share."""
    if _settings_error() is not None or conf.current().user_field == "pk":
        return []
    name, model = conf.current().user_field, get_user_model()
    try:
        field: Any = model._meta.get_field(name)
    except FieldDoesNotExist:
        field = None
    if field is None or field.many_to_many or getattr(field, "column", None) is None:
        text = f'AUTH_RLS["USER_FIELD"] is {name!r}, which {model._meta.label} has no column for.'
        return [checks.Error(text, obj=model, id="auth_rls.E004")]
    if field.unique or any(
        tuple(constraint.fields) == (name,) and constraint.condition is None
        for constraint in model._meta.constraints
        if isinstance(constraint, UniqueConstraint)
    ):
        return []
    return [
        checks.Warning(
            f"{model._meta.label}.{name}, which AUTH_RLS looks users up by, is not unique: the "
            "tokens of users who share a value are refused.",
            hint="Give it a unique constraint, and let users not choose each other's.",
            obj=model,
            id="auth_rls.W007",
        )
    ]


@checks.register(checks.Tags.models)
def check_policy_models(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.E010 for a name in AUTH_RLS["POLICY_MODELS"] that is no model with rows of its
    own."""
    if _settings_error() is not None:
        return []
    found: list[checks.CheckMessage] = []
    for label in sorted(conf.current().policy_models):
        try:
            model_named(label)
        except LookupError as error:
            text = f'AUTH_RLS["POLICY_MODELS"]: {error.args[0]}.'
            found.append(checks.Error(text, id="auth_rls.E010"))
    return found


def _settings_error() -> str | None:
    """Why AUTH_RLS cannot be used; None when it can."""
    try:
        conf.current()
    except ImproperlyConfigured as error:
        return str(error)
    return None
