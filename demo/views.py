"""The pages: signing in, the board, and the board's rows as JSON, for a page that reads them
again."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET

from demo.models import Task
from demo.rows import board as board_rows
from demo.seed import ADMIN, PASSWORD, PEOPLE


class SignIn(LoginView):
    """Django's own sign-in, with the demo accounts one click away.

    The page shows their password. `load_demo` refuses to make such accounts where DEBUG is
    off, and the page then does not offer them.
    """

    template_name = "demo/sign_in.html"
    next_page = reverse_lazy("board")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        if settings.DEBUG:
            context["people"] = PEOPLE
            context["admin"] = ADMIN
            context["password"] = PASSWORD
            context["other_origin"] = _other_origin(self.request)
        return context


@require_GET
@never_cache
@login_required
@ensure_csrf_cookie
def board(request: HttpRequest) -> HttpResponse:
    context = {
        "board": board_rows(request.user),
        "statuses": Task.Status.choices,
        "other_origin": _other_origin(request) if settings.DEBUG else None,
    }
    return render(request, "demo/board.html", context)


@require_GET
@never_cache
def rows(request: HttpRequest) -> JsonResponse:
    """The rows of the board as they are now. 401 for a session that has ended."""
    if not request.user.is_authenticated:
        return JsonResponse({"error": "Sign in first."}, status=401)
    return JsonResponse(board_rows(request.user))


def _other_origin(request: HttpRequest) -> str | None:
    """This server under its other name. Cookies are kept per host name, so one browser can be
    one person on localhost and another on 127.0.0.1, side by side."""
    name, _, port = request.get_host().partition(":")
    other = {"localhost": "127.0.0.1", "127.0.0.1": "localhost"}.get(name)
    if other is None:
        return None
    return f"{request.scheme}://{other}{':' if port else ''}{port}"
