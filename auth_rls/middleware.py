"""`request.subject`: who asks, by a Bearer token or by the Django session.

Owns which of the two a request is. A request with a token is that token's and no session's: its
`request.user` is the token's user, whatever cookies came along, and as no browser sends a token
by itself, it needs no CSRF token. A token that is refused ends in a 401; it is never taken for
nobody. Verifying tokens is `Subject`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.cache import patch_vary_headers
from django.utils.functional import SimpleLazyObject

from auth_rls.middleware_base import SyncAsyncMiddleware
from auth_rls.subjects.subject import Subject
from auth_rls.subjects.tokens import MalformedToken, TokenError

SCHEME = "bearer"
_MARK = "authenticates_itself"
_View = TypeVar("_View", bound=Callable[..., Any])


def bearer_token(request: Any) -> str | None:
    """The token of `Authorization: Bearer`; None where the request shows none. Raises TokenError
    where it shows one that is empty or more than one."""
    words = request.META.get("HTTP_AUTHORIZATION", "").split()
    if not words or words[0].lower() != SCHEME:
        return None
    if len(words) != 2:
        raise MalformedToken
    token: str = words[1]
    return token


def authenticates_itself(view: _View) -> _View:
    """Mark a view that reads `Authorization: Bearer` in a way of its own, such as keys that are
    no JWT: a value that the middleware would refuse is left to it, in a request of nobody's."""
    setattr(view, _MARK, True)
    return view


class SubjectMiddleware(SyncAsyncMiddleware):
    """Put it behind Django's AuthenticationMiddleware.

    `request.subject` is lazy where it comes from the session; in async views take
    `await request.asubject()`, as with `request.auser()`.
    """

    def blocks(self, request: HttpRequest) -> bool:
        return "HTTP_AUTHORIZATION" in request.META

    def before(self, request: HttpRequest) -> HttpResponseBase | None:
        try:
            token = bearer_token(request)
            _set(request, None if token is None else Subject.from_token(token))
        except TokenError as error:
            if not _is_left_to_its_view(request):
                return _refused(error)
            _become(request, Subject.anonymous())
        return None

    def after(self, response: HttpResponseBase) -> HttpResponseBase:
        # A request with a token reads no cookie, so nothing else tells caches whose answer it is.
        patch_vary_headers(response, ["Authorization"])
        return response


def _set(request: Any, subject: Subject | None) -> None:
    if not hasattr(request, "user"):
        raise ImproperlyConfigured(
            "auth_rls.middleware.SubjectMiddleware must stand behind "
            "django.contrib.auth.middleware.AuthenticationMiddleware in MIDDLEWARE."
        )
    if subject is None:
        request.subject = SimpleLazyObject(lambda: Subject.from_user(request.user))
        request.asubject = functools.partial(_of_session, request)
        return
    _become(request, subject)
    # What Django's CsrfViewMiddleware and REST framework's session authentication look at.
    request._dont_enforce_csrf_checks = True


def _become(request: Any, subject: Subject) -> None:
    user = AnonymousUser() if subject.user is None else subject.user

    async def auser() -> Any:
        return user

    async def asubject() -> Subject:
        return subject

    request.subject, request.asubject = subject, asubject
    request.user, request.auser = user, auser


def _is_left_to_its_view(request: Any) -> bool:
    try:
        found = resolve(request.path_info, getattr(request, "urlconf", None))
    except Resolver404:
        return False
    return getattr(found.func, _MARK, False)


async def _of_session(request: Any) -> Subject:
    return Subject.from_user(await request.auser())


def _refused(error: TokenError) -> HttpResponseBase:
    response = JsonResponse({"error": error.handshake_reason}, status=401)
    response["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    return response
