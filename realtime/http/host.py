"""Makes a view independent of the settings of the project around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction

from auth_rls.middleware import authenticates_itself

V = TypeVar("V", bound=Callable[..., Any])


def independent(view: V) -> V:
    """The view without the transaction of ATOMIC_REQUESTS, which Django refuses for async views,
    and exempt from `LoginRequiredMiddleware` and `SubjectMiddleware`: it authenticates by
    itself."""
    for alias in settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    view.login_required = False  # type: ignore[attr-defined]
    return authenticates_itself(view)
