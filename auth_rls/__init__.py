"""Row-level security for Django: permissions narrowed to rows by policies.

The names below are the public surface. They load on first use, because this package is imported
before the app registry is ready.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auth_rls.declared import declare_policy
    from auth_rls.qobjects import select
    from auth_rls.querysets import apermitted, avisible, permitted, visible
    from auth_rls.subject import Subject
    from auth_rls.writes import PolicyDenied, acheck_add, acheck_change, check_add, check_change

__all__ = [
    "PolicyDenied",
    "Subject",
    "acheck_add",
    "acheck_change",
    "apermitted",
    "avisible",
    "check_add",
    "check_change",
    "declare_policy",
    "permitted",
    "select",
    "visible",
]

_HOMES = {
    "PolicyDenied": "auth_rls.writes",
    "Subject": "auth_rls.subject",
    "acheck_add": "auth_rls.writes",
    "acheck_change": "auth_rls.writes",
    "apermitted": "auth_rls.querysets",
    "avisible": "auth_rls.querysets",
    "check_add": "auth_rls.writes",
    "check_change": "auth_rls.writes",
    "declare_policy": "auth_rls.declared",
    "permitted": "auth_rls.querysets",
    "select": "auth_rls.qobjects",
    "visible": "auth_rls.querysets",
}


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
