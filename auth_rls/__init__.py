"""Row-level security for Django: permissions narrowed to rows by policies.

The names below are the public surface. They load on first use, because this package is imported
before the app registry is ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from auth_rls.lazy_names import lazy_names

if TYPE_CHECKING:
    from auth_rls.access.querysets import apermitted, avisible, permitted, visible
    from auth_rls.access.writes import (
        PolicyDenied,
        acheck_add,
        acheck_change,
        check_add,
        check_change,
    )
    from auth_rls.policy.declared import declare_policy
    from auth_rls.policy.qobjects import select
    from auth_rls.subjects.denylist import token_denylist
    from auth_rls.subjects.disconnect import disconnect
    from auth_rls.subjects.subject import Subject

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
    "disconnect",
    "permitted",
    "select",
    "token_denylist",
    "visible",
]

_HOMES = {
    "PolicyDenied": "auth_rls.access.writes",
    "Subject": "auth_rls.subjects.subject",
    "acheck_add": "auth_rls.access.writes",
    "acheck_change": "auth_rls.access.writes",
    "apermitted": "auth_rls.access.querysets",
    "avisible": "auth_rls.access.querysets",
    "check_add": "auth_rls.access.writes",
    "check_change": "auth_rls.access.writes",
    "declare_policy": "auth_rls.policy.declared",
    "disconnect": "auth_rls.subjects.disconnect",
    "permitted": "auth_rls.access.querysets",
    "select": "auth_rls.policy.qobjects",
    "token_denylist": "auth_rls.subjects.denylist",
    "visible": "auth_rls.access.querysets",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
