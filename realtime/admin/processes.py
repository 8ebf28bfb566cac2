"""The processes that run, in the admin."""

from __future__ import annotations

import json
from datetime import datetime

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext_lazy as _

from realtime.admin.documents import document
from realtime.admin.read_only import ReadOnlyAdmin
from realtime.models import Process


@admin.register(Process)
class ProcessAdmin(ReadOnlyAdmin):
    about = _(
        "Servers, tailers and workers that run now; a server from its first WebSocket on. One "
        "process numbers the log; the others that could stand by. A process that ends takes its "
        "line with it."
    )
    list_display = ("where", "state", "seen", "connections", "channels", "subscriptions", "reached")
    list_display_links = ("where",)
    list_filter = ("kind",)
    ordering = ("kind", "host", "pid")
    shown = (
        "kind",
        "host",
        "pid",
        "version",
        "state",
        "started_at",
        "seen_at",
        "lease",
        "position",
        "behind",
        "connections",
        "channels",
        "subscriptions",
        "holding_seq",
        "counted",
        "id",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Process]:
        # The rows' times are by the database's clock.
        return super().get_queryset(request).annotate(now=Now())

    @admin.display(description=_("process"), ordering="host")
    def where(self, process: Process) -> str:
        return f"{process.get_kind_display()} {process.host}:{process.pid}"

    @admin.display(description=_("state"))
    def state(self, process: Process) -> SafeString:
        if process.lease < _now(process):
            kind, text = "gone", _("not seen since its lease ended")
        elif process.leading:
            kind, text = "ok", _("runs, numbers the log")
        elif process.tailing:
            kind, text = "ok", _("runs, stands by to number")
        else:
            kind, text = "ok", _("runs")
        return format_html('<span class="realtime-state realtime-{}">{}</span>', kind, text)

    @admin.display(description=_("seen"), ordering="seen_at")
    def seen(self, process: Process) -> SafeString | str:
        seconds = int((_now(process) - process.seen_at).total_seconds())
        if seconds < 60:
            text = _("%d s ago") % max(seconds, 0)
        else:
            text = _("%s ago") % timesince(process.seen_at, _now(process), depth=1)
        return format_html('<span title="{}">{}</span>', process.seen_at.isoformat(" "), text)

    @admin.display(description="seq", ordering="position")
    def reached(self, process: Process) -> SafeString | str:
        if not process.behind:
            return str(process.position)
        behind = _("%d behind") % process.behind
        return format_html(
            '{} <span class="realtime-note">{}</span>', str(process.position), behind
        )

    @admin.display(description=_("counters"))
    def counted(self, process: Process) -> SafeString:
        return document(json.dumps(process.counters))


def _now(process: Process) -> datetime:
    now: datetime = vars(process)["now"]
    return now
