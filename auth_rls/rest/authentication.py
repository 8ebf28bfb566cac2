"""Bearer tokens for REST framework's views.

Owns the answers to REST framework. `Subject` verifies the token and finds its user.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed

from auth_rls.middleware import bearer_token
from auth_rls.subjects.subject import Subject
from auth_rls.subjects.token_errors import TokenError


class SubjectAuthentication(BaseAuthentication):
    """Reads `Authorization: Bearer <JWT>`. `request.auth` is the `Subject`, `request.user` its
    user, anonymous if the token names no Django user. Without a token REST framework tries the next
    authentication class.

    It reads no cookie, so it needs no CSRF token. It works with and without `SubjectMiddleware`.
    """

    def authenticate(self, request: Any) -> tuple[Any, Subject] | None:
        try:
            token = bearer_token(request)
            subject = None if token is None else Subject.from_token(token)
        except TokenError as error:
            raise AuthenticationFailed(error.handshake_reason) from None
        if subject is None:
            return None
        return (AnonymousUser() if subject.user is None else subject.user), subject

    def authenticate_header(self, request: Any) -> str:
        return 'Bearer realm="api"'
