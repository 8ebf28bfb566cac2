"""The user of a request as the actor of the writes of its view.

Owns which user that is. The user is only read when something is written, so a request that only
reads costs no query for the session.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any

from django.http import HttpRequest

from auth_rls.middleware_base import SyncAsyncMiddleware
from auth_rls.subjects.subject import ANON, Subject
from realtime.wal.actor import acting, actor_name


class ActorMiddleware(SyncAsyncMiddleware):
    """Put it behind Django's AuthenticationMiddleware, and behind SubjectMiddleware if that is in
    use."""

    def around(self, request: HttpRequest) -> AbstractContextManager[Any]:
        return acting(functools.partial(_actor_of, request))


def _actor_of(request: HttpRequest) -> str | None:
    """The request's user; for a token that names no Django user, its user id or its role."""
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return actor_name(user)
    # REST framework puts what authenticated a request into `auth`.
    for found in (getattr(request, "auth", None), getattr(request, "subject", None)):
        if isinstance(found, Subject) and found.role != ANON:
            return str(found.user_id) if found.user_id is not None else found.role
    return None
