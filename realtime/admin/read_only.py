"""Pages that show and change nothing."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from auth_rls.documentation import page


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows its `shown` fields; adds, changes and deletes nothing."""

    shown: tuple[str, ...] = ()
    # What the list is, in a sentence or two, and its page of the documentation.
    about: Any = ""
    documentation = "reference/operations"

    @property
    def media(self) -> forms.Media:
        return super().media + forms.Media(css={"all": ("realtime/admin.css",)})

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"about": self.about, "documentation": page(self.documentation)}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["documentation"] = page(self.documentation)
        return super().render_change_form(request, context, *args, **kwargs)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # By `objects`, because the default manager is for fixtures and returns no rows.
        return self.model.objects.order_by(*self.get_ordering(request))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.shown

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.shown

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
