"""Policies declared in code: in `policies.py` of any app, read-only everywhere else.

Owns the list of them. They are declared while apps load, so nothing here looks at a model or at
the database; whether a declaration means anything is said by the system checks, the admin and
the log, as for policies in the database.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Q

from auth_rls.policy.definition import Definition
from auth_rls.policy.qobjects import to_json

_declared: dict[str, Definition] = {}


def declare_policy(
    name: str,
    permission: str,
    *,
    audience: Literal["permission", "authenticated", "anyone"] = "permission",
    mode: Literal["permissive", "restrictive"] = "permissive",
    using: Q | bool | None = None,
    with_check: Q | bool | None = None,
) -> None:
    """Declare a policy, as in
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
    """Declare a policy that is written as JSON already. ImproperlyConfigured for a name declared
    twice."""
    previous = _declared.get(definition.name)
    if previous is not None:
        raise ImproperlyConfigured(
            f"The policy {definition.name!r} is declared twice: in {previous.source} and in "
            f"{definition.source}."
        )
    _declared[definition.name] = definition


def declared_policies() -> tuple[Definition, ...]:
    """Every declared policy, by name."""
    return tuple(_declared[name] for name in sorted(_declared))


@contextmanager
def isolated() -> Iterator[None]:
    """A world of its own for tests: inside nothing is declared, afterwards all is as before."""
    saved = dict(_declared)
    _declared.clear()
    try:
        yield
    finally:
        _declared.clear()
        _declared.update(saved)
