"""The tables with a history of their own, in the admin, read-only."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from realtime.admin.read_only import ReadOnlyAdmin
from realtime.models import HistoryTable


@admin.register(HistoryTable)
class HistoryTableAdmin(ReadOnlyAdmin):
    about = _(
        "Tables whose changes are kept longer than the log keeps them. One that is not active "
        "belongs to a model that asks for no history any more, and what is kept grows old."
    )
    documentation = "how-to/row-history"
    list_display = ("table_name", "days", "active", "copied_seq", "lost_seq")
    ordering = ("table_name", "schema_name")
    shown = ("schema_name", "table_name", "days", "active", "copied_seq", "lost_seq")
