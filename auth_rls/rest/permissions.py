"""PolicyPermission: policies decide what a view may do to objects and what it may save.

Owns the action of each HTTP method and the answer to each refusal. The decisions come from
`access`, as at every other door.
"""

from __future__ import annotations

import functools
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.http import Http404
from rest_framework.permissions import SAFE_METHODS, BasePermission

from auth_rls.access.authority import new_row_predicate
from auth_rls.access.querysets import permitted
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.access.writes import PolicyDenied, denied
from auth_rls.predicates.predicate import FALSE
from auth_rls.rest.view_info import is_creating, model_of
from auth_rls.rest.write_guard import Guard
from auth_rls.sql.columns import concrete
from auth_rls.sql.inheritance import has_key
from auth_rls.sql.primary import primary
from auth_rls.subjects.resolve import of_request


class PolicyPermission(BasePermission):
    """Answers 404 for an object that may not be viewed, 403 for one that may be viewed and not
    written to, and 403 for a new or changed row that no policy allows; then nothing is written.

    Works on every view that has a queryset, together with `PolicyFilterBackend`, which narrows
    lists. Combine it with other permissions by listing them, or with `&`.
    """

    def action_for(self, request: Any, view: Any) -> str:
        """The action on an object: view, change or delete. Override it for routes whose method does
        not show the action, such as a POST that only reads."""
        if request.method in SAFE_METHODS:
            return "view"
        return "delete" if request.method == "DELETE" else "change"

    def has_permission(self, request: Any, view: Any) -> bool:
        model = model_of(view)
        if request.method in SAFE_METHODS:
            return True
        subject = of_request(request)
        if subject is None:
            return False
        # Before the body is parsed: a validator's message can disclose hidden rows.
        creates = request.method == "POST" and is_creating(view)
        if creates and new_row_predicate(subject, model, "add") == FALSE:
            self.message = str(denied(model, "add", "No policy lets you add a {}"))
            return False
        _guard(view, request, Guard(view, subject))
        return True

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        subject = of_request(request)
        if subject is None or not isinstance(obj, models.Model) or not has_key(obj):
            return False
        model = concrete(type(obj))
        action = self.action_for(request, view)
        snapshot = PolicySnapshot.load()
        # No manager: with one that hides rows this door would differ from the others.
        row: models.QuerySet[Any] = models.QuerySet(model, using=primary(model, obj)).filter(
            pk=obj.pk
        )
        if not permitted(row, subject, "view", snapshot=snapshot).exists():
            raise Http404
        if action == "view" or permitted(row, subject, action, snapshot=snapshot).exists():
            return True
        self.message = str(denied(model, action, f"No policy lets you {action} this {{}}"))
        return False


def _guard(view: Any, request: Any, guard: Guard) -> None:
    """Put the guard around the handler that the view is about to call.

    REST framework looks the handler up on the view, an object of one request, after it has checked
    the permissions. For the forms of the browsable API it checks them again for other methods,
    after the handler has run.
    """
    name = request.method.lower()
    handler = getattr(view, name, None)
    if handler is None or name not in view.http_method_names or hasattr(handler, "guarded"):
        return
    if iscoroutinefunction(handler):
        raise ImproperlyConfigured(
            f"PolicyPermission cannot guard what {type(view).__name__}.{name} saves, because it is "
            "async. Call auth_rls.acheck_add and acheck_change there."
        )

    @functools.wraps(handler)
    def guarded(request: Any, *args: Any, **kwargs: Any) -> Any:
        _guard_serializers(view, guard)
        try:
            return guard.run(lambda: handler(request, *args, **kwargs))
        except PolicyDenied as refusal:
            view.permission_denied(request, message=str(refusal))

    guarded.guarded = True  # type: ignore[attr-defined]
    setattr(view, name, guarded)


def _guard_serializers(view: Any, guard: Guard) -> None:
    get_serializer = getattr(view, "get_serializer", None)
    if get_serializer is not None:
        view.get_serializer = lambda *args, **kwargs: guard.judging(get_serializer(*args, **kwargs))
