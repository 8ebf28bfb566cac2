"""What makes a view independent of the project that it is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction

from auth_rls.middleware import authenticates_itself

V = TypeVar("V", bound=Callable[..., Any])


def independent(view: V) -> V:
    """The view, outside the transaction of ATOMIC_REQUESTS, which Django refuses for async views,
    and outside `LoginRequiredMiddleware` and `SubjectMiddleware`: it authenticates by itself."""
    for alias in settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    view.login_required = False  # type: ignore[attr-defined]
    return authenticates_itself(view)
