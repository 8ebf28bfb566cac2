"""The demo in the admin, under the same policies as everywhere else.

Django's admin decides by permissions alone, not by rows; here it shows and offers only rows and
actions that the policies allow. Superusers see all.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_permission_codename
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from auth_rls.access.querysets import visible
from auth_rls.subjects.subject import Subject
from demo.models import Membership, Message, Task, Team
from realtime.admin import ChangesMixin


class GuardedAdmin(ChangesMixin, admin.ModelAdmin):
    """A ModelAdmin that shows and changes only rows for which the policies allow it, and what
    became of them."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return visible(super().get_queryset(request), Subject.from_user(request.user))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_view_permission(request, obj) and self._agreed(request, "view", obj)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._agreed(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._agreed(request, "delete", obj)

    def _agreed(self, request: HttpRequest, action: str, obj: Model | None) -> bool:
        if obj is None:
            return True
        codename = get_permission_codename(action, self.opts)
        return request.user.has_perm(f"{self.opts.app_label}.{codename}", obj)


class MembershipInline(admin.TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ["user"]


@admin.register(Team)
class TeamAdmin(GuardedAdmin):
    list_display = ["name"]
    search_fields = ["name"]
    inlines = [MembershipInline]


@admin.register(Task)
class TaskAdmin(GuardedAdmin):
    list_display = ["title", "team", "status", "owner", "assignee", "is_public", "updated_at"]
    list_filter = ["team", "status", "is_public"]
    list_select_related = ["team", "owner", "assignee"]
    search_fields = ["title"]
    autocomplete_fields = ["team", "owner", "assignee"]


@admin.register(Message)
class MessageAdmin(GuardedAdmin):
    list_display = ["body", "team", "author", "is_public", "created_at"]
    list_filter = ["team", "is_public"]
    list_select_related = ["team", "author"]
    search_fields = ["body"]
    autocomplete_fields = ["team", "author"]
