"""System checks: what about the policies or the settings would deny, or let nobody in.

Owns the messages and their ids. Stored policies are read only when `check` is asked about a
database (`manage.py check --database default`, and `migrate` before it starts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.db.migrations.executor import MigrationExecutor
from django.utils.module_loading import import_string

from auth_rls import conf
from auth_rls.policy.database_check import problem_of
from auth_rls.policy.declared import declared_policies
from auth_rls.policy.definition import Definition, PolicyProblem, understand

# The size of SHA-256's output, below which RFC 7518 forbids a key.
_SHORTEST_SECRET = 32

_HINT = (
    "Until it is mended it denies: permissive it grants nothing, restrictive it denies all. One "
    "that the database cannot evaluate takes the other policies of its permission with it."
)


@checks.register(checks.Tags.models)
def check_declared(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.E001 for every policy in code that cannot be used."""
    return _declared_errors(declared_policies(), _problem)


@checks.register(checks.Tags.database)
def check_stored(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """auth_rls.E001 for every enabled policy in the database that cannot be used, and for every
    one in code that the database cannot evaluate; W004 for the former while migrations are
    pending, for one of them may mend it."""
    from auth_rls.models import Policy

    found: list[checks.CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if not router.allow_migrate_model(alias, Policy):
            continue
        if Policy._meta.db_table not in connection.introspection.table_names():
            continue
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if any(migration.app_label == Policy._meta.app_label for migration, _ in pending):
            continue  # The table is not yet what the model says.
        policies = Policy.objects.using(alias).filter(enabled=True)
        for policy in policies.select_related("permission__content_type"):
            problem = problem_of(policy.definition(), databases)
            if problem is None:
                continue
            text = f"The policy {policy.name!r} cannot be used: {problem.field}: {problem.message}"
            if pending:
                found.append(checks.Warning(text, hint=_HINT, obj=policy, id="auth_rls.W004"))
            else:
                found.append(checks.Error(text, hint=_HINT, obj=policy, id="auth_rls.E001"))
        if not pending:
            # What the models say of them, `check_declared` has said.
            usable = [each for each in declared_policies() if _problem(each) is None]
            found += _declared_errors(usable, lambda each: problem_of(each, databases))
    return found


def _declared_errors(
    definitions: Iterable[Definition], ask: Callable[[Definition], PolicyProblem | None]
) -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    for definition in definitions:
        problem = ask(definition)
        if problem is not None:
            text = (
                f"The policy {definition.name!r} declared in {definition.source} cannot be used: "
                f"{problem.field}: {problem.message}"
            )
            found.append(checks.Error(text, hint=_HINT, id="auth_rls.E001"))
    return found


def _problem(definition: Definition) -> PolicyProblem | None:
    try:
        understand(definition)
    except PolicyProblem as problem:
        return problem
    return None


@checks.register(checks.Tags.security)
def check_backend(**kwargs: Any) -> list[checks.CheckMessage]:
    """auth_rls.W002 when `user.has_perm(permission, obj)` would not ask the policies."""
    from auth_rls.backends import PolicyBackend

    for path in settings.AUTHENTICATION_BACKENDS:
        try:
            backend = import_string(path)
        except ImportError:
            continue  # Django says so itself as soon as anybody logs in.
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
    """auth_rls.E003 for an AUTH_RLS that cannot be used, W003 for a secret that is too short."""
    try:
        current = conf.current()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="auth_rls.E003")]
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
