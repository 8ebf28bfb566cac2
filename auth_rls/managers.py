"""A manager whose querysets have `for_subject`: `Note.objects.for_subject(request)`.

Owns the method and no rule; the rows are chosen by `access.querysets`.
"""

from __future__ import annotations

from typing import Any, Self, TypeVar

from django.db.models import Manager, Model, QuerySet

from auth_rls.access.querysets import apermitted, permitted

_M = TypeVar("_M", bound=Model)


class PolicyQuerySet(QuerySet[_M]):
    """A QuerySet with `for_subject`. For querysets of your own, put it among their bases."""

    def for_subject(self, subject: Any, action: str = "view") -> Self:
        """The rows to which `subject`, a `Subject`, a Django user or a request, may do `action`:
        view, change or delete. Like any filter it must come before slicing."""
        return permitted(self, subject, action)

    async def afor_subject(self, subject: Any, action: str = "view") -> Self:
        """`for_subject` for async callers, who then iterate with `async for`."""
        return await apermitted(self, subject, action)


class PolicyManager(Manager.from_queryset(PolicyQuerySet)):  # type: ignore[misc]
    """`objects = PolicyManager()`. By itself it hides no row: only `for_subject` narrows."""
