"""Policies declared in code: in `policies.py` of any app, read-only in the admin.

Owns the list. Policies are declared while apps load, so nothing here reads a model or the database.
A declaration that cannot be used is reported by the system checks, the admin and the log, like a
stored policy.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Final, Literal

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Q

from auth_rls.policy.definition import Definition
from auth_rls.policy.qobjects import to_json

DECLARED: Final[dict[str, Definition]] = {}
"""The declared policies by name, in the order of their declarations. Filled by `declare`."""


def declare_policy(
    name: str,
    permission: str,
    *,
    audience: Literal["permission", "authenticated", "anyone"] = "permission",
    mode: Literal["permissive", "restrictive"] = "permissive",
    using: Q | bool | None = None,
    with_check: Q | bool | None = None,
) -> None:
    """Declares a policy, as in
    `declare_policy("Own notes", "notes.view_note", using=Q(owner="$user.id"))`.

    `permission` is "app.codename"; the other arguments are the fields of `auth_rls.Policy`.
    Raises ImproperlyConfigured for a name declared twice and for a Q object that no policy can
    express.
    """
    source = sys._getframe(1).f_globals.get("__name__", "code")
    try:
        written = [None if q is None else to_json(q) for q in (using, with_check)]
    except ValueError as error:
        raise ImproperlyConfigured(f"The policy {name!r} in {source}: {error}") from error
    declare(
        Definition(
            name=name,
            permission=permission,
            audience=audience,
            mode=mode,
            using=written[0],
            with_check=written[1],
            source=source,
        )
    )


def declare(definition: Definition) -> None:
    """Declares a policy whose predicates are JSON already. Raises ImproperlyConfigured for a name
    declared twice."""
    previous = DECLARED.get(definition.name)
    if previous is not None:
        raise ImproperlyConfigured(
            f"The policy {definition.name!r} is declared twice: in {previous.source} and in "
            f"{definition.source}."
        )
    DECLARED[definition.name] = replace(definition, in_code=True)


def declared_policies() -> tuple[Definition, ...]:
    """Every declared policy, in the order of the names."""
    return tuple(DECLARED[name] for name in sorted(DECLARED))
