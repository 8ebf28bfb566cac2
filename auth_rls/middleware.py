"""`request.subject`: the subject of a request, by a Bearer token or by the Django session.

Owns the choice between the two. In a request with a token the session is ignored: the subject is
the token's, and `request.user` is anonymous, whatever cookies it has. So a token opens no view that
was written for sessions, and no page of the admin. Views that take tokens are marked by
`accepts_tokens`. A refused token is answered with 401; such a request never counts as anonymous.
`Subject` verifies tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.cache import patch_vary_headers
from django.utils.functional import SimpleLazyObject
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from auth_rls.middleware_base import SyncAsyncMiddleware
from auth_rls.subjects.subject import Subject
from auth_rls.subjects.token_errors import MalformedToken, TokenError

SCHEME = "bearer"
_OWN_KEYS = "authenticates_itself"
# Where the middleware leaves the subject of a token that it has verified.
_BY_TOKEN = "_auth_rls_token_subject"
_ADMIN = "admin"
_View = TypeVar("_View", bound=Callable[..., Any])


def bearer_token(request: Any) -> str | None:
    """The token of `Authorization: Bearer`, or None without such a header.

    Raises TokenError where the header holds no token or more than one.
    """
    words = request.META.get("HTTP_AUTHORIZATION", "").split()
    if not words or words[0].lower() != SCHEME:
        return None
    if len(words) != 2:
        raise MalformedToken
    token: str = words[1]
    return token


def accepts_tokens(view: _View) -> _View:
    """Mark a view that takes Bearer tokens as it takes sessions.

    In such a view `request.user` is the token's user. A request with a token needs no CSRF token,
    because no browser sends a Bearer token by itself; other requests are checked as usual. In views
    of Django's admin the mark has no effect.
    """
    guarded = csrf_protect(view)
    answer: Callable[..., Any]
    if iscoroutinefunction(view):

        async def answer_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return await (view if _let_in(request) else guarded)(request, *args, **kwargs)

        answer = answer_async
    else:

        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return (view if _let_in(request) else guarded)(request, *args, **kwargs)

    # Django's CSRF middleware runs before the token is read; `guarded` checks instead.
    return cast(_View, csrf_exempt(functools.wraps(view)(answer)))


def authenticates_itself(view: _View) -> _View:
    """Mark a view that reads `Authorization: Bearer` by itself, for example for keys that are no
    JWT. A value that the middleware would refuse, or whose user it cannot read, is left to the
    view, in an anonymous request."""
    setattr(view, _OWN_KEYS, True)
    return view


class SubjectMiddleware(SyncAsyncMiddleware):
    """Put it behind Django's AuthenticationMiddleware.

    `request.subject` is lazy where it comes from the session; in async views take
    `await request.asubject()`, as with `request.auser()`.
    """

    def blocks(self, request: HttpRequest) -> bool:
        return "HTTP_AUTHORIZATION" in request.META

    def before(self, request: HttpRequest) -> HttpResponseBase | None:
        if not hasattr(request, "user"):
            raise ImproperlyConfigured(
                "auth_rls.middleware.SubjectMiddleware must stand behind "
                "django.contrib.auth.middleware.AuthenticationMiddleware in MIDDLEWARE."
            )
        try:
            token = bearer_token(request)
            subject = None if token is None else Subject.from_token(token)
        except (TokenError, DatabaseFailure) as error:
            if not _is_left_to_its_view(request):
                if isinstance(error, TokenError):
                    return _refused(error)
                raise
            _set_subject(request, Subject.anonymous())
            _set_user(request, None)
            return None
        if subject is None:
            _use_session(request)
        else:
            _set_subject(request, subject)
            _set_user(request, None)
            setattr(request, _BY_TOKEN, subject)
        return None

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        # A request with a token reads no cookie, so Vary must name the header for caches.
        patch_vary_headers(response, ["Authorization"])
        return response


def _let_in(request: HttpRequest) -> bool:
    """Whether the request came with a token; its user is then the request's."""
    subject = getattr(request, _BY_TOKEN, None)
    match = request.resolver_match
    if subject is None or match is None or _ADMIN in match.app_names:
        return False
    _set_user(request, subject.user)
    return True


def _use_session(request: Any) -> None:
    async def asubject() -> Subject:
        return Subject.from_user(await request.auser())

    request.subject = SimpleLazyObject(lambda: Subject.from_user(request.user))
    request.asubject = asubject


def _set_subject(request: Any, subject: Subject) -> None:
    async def asubject() -> Subject:
        return subject

    request.subject, request.asubject = subject, asubject


def _set_user(request: Any, user: Any) -> None:
    """Make `user` the request's; None stands for nobody."""
    user = AnonymousUser() if user is None else user

    async def auser() -> Any:
        return user

    request.user, request.auser = user, auser


def _is_left_to_its_view(request: Any) -> bool:
    try:
        found = resolve(request.path_info, getattr(request, "urlconf", None))
    except Resolver404:
        return False
    return getattr(found.func, _OWN_KEYS, False)


def _refused(error: TokenError) -> HttpResponseBase:
    response = JsonResponse({"error": error.handshake_reason}, status=401)
    response["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    return response
