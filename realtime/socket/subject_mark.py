"""A text by which a client tells whether two of its joins were made by the same subject.

A join that resumes is answered for the subject that it has now. Only the client knows whose rows it
shows, and must not keep those of another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from django.utils.crypto import salted_hmac

from auth_rls.subjects.subject import Subject

# The registered claims that another token of the same subject has otherwise.
_OF_ONE_TOKEN: Final = frozenset(("exp", "iat", "nbf", "jti"))
_DIGITS: Final = 16
# The channels of one connection are mostly joined one behind the other.
_MOST_KEPT: Final = 256


def subject_mark(subject: Subject) -> str:
    """16 hex digits, equal for subjects of equal role, user and claims, apart from the claims that
    concern one token alone (`exp`, `iat`, `nbf`, `jti`). Nothing of the subject can be read from
    them, or tried out without SECRET_KEY."""
    return _mark(subject.role, subject.user_id, subject.claims)


@lru_cache(_MOST_KEPT)
def _mark(role: str, user_id: Any, claims: Mapping[str, Any]) -> str:
    lasting = {name: value for name, value in claims.items() if name not in _OF_ONE_TOKEN}
    text = json.dumps(
        [role, user_id, lasting], sort_keys=True, separators=(",", ":"), default=_plain
    )
    return salted_hmac("realtime.subject_mark", text, algorithm="sha256").hexdigest()[:_DIGITS]


def _plain(value: Any) -> Any:
    """Nested claims are mappings; a primary key may be of any type, such as a UUID."""
    return dict(value) if isinstance(value, Mapping) else str(value)
