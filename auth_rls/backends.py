"""The object door: `user.has_perm("chat.view_message", message)` applies the policies.

Owns the answer for one object. ModelBackend decides whether a user has a permission at all, so
without an object the answer here is always False. For active superusers Django returns True before
it calls any backend.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.backends import BaseBackend
from django.db import models

from auth_rls.access import audit_log
from auth_rls.access.authority import may_add, may_do
from auth_rls.access.querysets import permitted
from auth_rls.policy.definition import ACTIONS, actions_of, codename_of
from auth_rls.sql.columns import concrete
from auth_rls.sql.inheritance import has_key
from auth_rls.sql.primary import primary
from auth_rls.subjects.subject import Subject


class PolicyBackend(BaseBackend):
    """Add it to AUTHENTICATION_BACKENDS behind ModelBackend."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Whether policies let `user_obj`, who may be anonymous, do `perm` ("app.codename") to
        the model instance `obj`.

        View, change and delete are decided by the stored row, whatever the instance holds; add
        by the instance's values.
        """
        if not isinstance(obj, models.Model):
            return False
        if not user_obj.is_anonymous and not getattr(user_obj, "is_active", False):
            return False
        action = _action(perm, obj)
        if action is None:
            return False
        subject = Subject.from_user(user_obj)
        if action == "add":
            return may_add(subject, obj)
        if action not in ACTIONS:
            return may_do(subject, obj, action)
        if not has_key(obj):
            return False
        model = concrete(type(obj))
        # No manager: with one that hides rows this door would differ from the others.
        alias = primary(model, obj)
        stored: models.QuerySet[models.Model] = models.QuerySet(model, using=alias)
        rows = permitted(stored.filter(pk=obj.pk), subject, action)
        if rows.query.is_empty():
            return False
        allowed = rows.exists()
        if not allowed:
            audit_log.row_denied(subject, model, action)
        return allowed

    async def ahas_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """`has_perm` for async callers: the query runs in a database thread."""
        if not isinstance(obj, models.Model):
            return False
        return await sync_to_async(self.has_perm, thread_sensitive=True)(user_obj, perm, obj)


def _action(perm: str, obj: models.Model) -> str | None:
    """The action that `perm` names on rows of `obj`'s table; None when it names none."""
    model = concrete(type(obj))
    for action in actions_of(model):
        if perm == f"{model._meta.app_label}.{codename_of(model, action)}":
            return action
    return None
