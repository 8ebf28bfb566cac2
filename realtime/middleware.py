"""What a view writes: who writes it, and by which receipts the client knows it again.

Owns which user of a request that is, and the header of receipts. The user is only read when
something is written, so a request that only reads costs no query for the session.
"""

from __future__ import annotations

import functools
from collections import deque
from contextlib import AbstractContextManager
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from auth_rls.middleware_base import SyncAsyncMiddleware
from auth_rls.subjects.subject import ANON, Subject
from realtime.wal.actor import acting, actor_name, subject_name
from realtime.wal.receipts import noting

RECEIPT_HEADER = "Rowcast-Transaction"
_MOST_RECEIPTS = 32
_NOTED = "_rowcast_receipts"


class ActorMiddleware(SyncAsyncMiddleware):
    """Put it behind Django's AuthenticationMiddleware, and behind SubjectMiddleware if that is in
    use."""

    def around(self, request: HttpRequest) -> AbstractContextManager[Any]:
        return acting(functools.partial(_actor_of, request))


class ReceiptMiddleware(SyncAsyncMiddleware):
    """Sends the receipts of a view in the header `Rowcast-Transaction`.

    The header comes only if the view took a receipt by `realtime.receipt()`, and the transaction
    was committed before the response was returned. Of several transactions it names all, in the
    order of their commits, separated by commas; of very many the last ones. What the content of a
    streaming response writes comes too late for it.
    """

    def around(self, request: HttpRequest) -> AbstractContextManager[Any]:
        noted: deque[str] = deque(maxlen=_MOST_RECEIPTS)
        setattr(request, _NOTED, noted)
        return noting(noted)

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        noted = getattr(request, _NOTED, ())
        if noted:
            response[RECEIPT_HEADER] = ", ".join(noted)
        return response


def _actor_of(request: HttpRequest) -> str | None:
    """The request's user; for a token that names no Django user, its user id or its role."""
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return actor_name(user)
    # REST framework puts what authenticated a request into `auth`.
    for found in (getattr(request, "auth", None), getattr(request, "subject", None)):
        if isinstance(found, Subject) and found.role != ANON:
            name = str(found.user_id) if found.user_id is not None else found.role
            return subject_name(found) or name
    return None
