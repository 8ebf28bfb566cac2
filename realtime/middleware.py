"""Each request's user as the actor of what its view writes.

Owns who that is. The user is read only when something is written, so a page that is only read
costs no look at the session.
"""

from __future__ import annotations

import functools
from typing import Any

from django.http import HttpRequest

from auth_rls.middleware_base import SyncAsyncMiddleware
from auth_rls.subjects.subject import ANON, Subject
from realtime.wal.actor import acting, actor_name


class ActorMiddleware(SyncAsyncMiddleware):
    """Put it behind Django's AuthenticationMiddleware, and behind SubjectMiddleware if there."""

    def call(self, request: HttpRequest) -> Any:
        with acting(functools.partial(_who, request)):
            return self.get_response(request)

    async def acall(self, request: HttpRequest) -> Any:
        with acting(functools.partial(_who, request)):
            return await self.get_response(request)


def _who(request: HttpRequest) -> str | None:
    """The request's user; else, of a token that names no Django user, its user id or role."""
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return actor_name(user)
    # REST framework leaves there what authenticated a request.
    for found in (getattr(request, "auth", None), getattr(request, "subject", None)):
        if isinstance(found, Subject) and found.role != ANON:
            return str(found.user_id) if found.user_id is not None else found.role
    return None
