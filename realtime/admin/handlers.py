"""Handlers of changes and what they gave up, in the admin: their state, and what may be done.

What handlers do is in their code; here they are paused, set going again and moved. That needs the
permission to change handlers, and to change or delete dead letters; others may only look.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import transaction
from django.db.models import Count, F, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.constants import LOOKUP_SEP
from django.db.models.functions import Coalesce, Now
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from realtime.admin.documents import MAX_DOCUMENT, document, with_note
from realtime.admin.read_only import ReadOnlyAdmin
from realtime.handling import operations
from realtime.handling.operations import CannotDo
from realtime.handling.resending import send_again
from realtime.models import DeadLetter, Handler, LogHead
from realtime.ops import handler_status
from realtime.wal import published

# Characters of an error in a line of a list.
_ERROR_LENGTH = 120
_STATES = {
    "running": ("ok", _("runs")),
    "retrying": ("late", _("tries again")),
    "waiting": ("gone", _("nobody runs it")),
    "paused": ("gone", _("paused")),
    "stopped": ("bad", _("stopped")),
}


class SeqForm(forms.Form):
    """Where handlers begin again."""

    seq = forms.IntegerField(
        min_value=1,
        max_value=2**63 - 1,
        label=_("From seq"),
        help_text=_("The first change to be handled again. Earlier ones are left alone."),
    )


class _ControlledAdmin(ReadOnlyAdmin):
    """Read-only pages with actions, for those who may change the model."""

    documentation = "reference/operations#handlers-of-changes"

    def has_control_permission(self, request: HttpRequest) -> bool:
        """Whether the user may do what the actions do."""
        return super(ReadOnlyAdmin, self).has_change_permission(request)

    def each(
        self,
        request: HttpRequest,
        found: QuerySet[Any],
        do: Callable[[Any], object],
        done: str,
    ) -> int:
        """Do it to each, noted in its history as `done`; say what was refused. How many were."""
        count = 0
        for one in found:
            try:
                do(one)
            except CannotDo as error:
                self.message_user(request, f"“{one}”: {error}", messages.ERROR)
                continue
            self.log_change(request, one, done)
            count += 1
        return count

    def ask(self, request: HttpRequest, found: QuerySet[Any], **context: Any) -> TemplateResponse:
        """A page that asks before an action is done, with what it will be done to."""
        return TemplateResponse(
            request,
            "admin/realtime/handler/confirm.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.model._meta,
                "found": found,
                "media": self.media,
                "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
                "action": request.POST.get("action"),
                **context,
            },
        )


@admin.register(Handler)
class HandlerAdmin(_ControlledAdmin):
    about = _(
        "Functions that run on every committed change, with how far each has come in the log. A "
        "handler that failed stands still until it is resumed, here or by manage.py handlers; "
        "the log is kept for it meanwhile."
    )
    list_display = ("where", "state", "seq", "behind", "waits", "handled", "failures", "given_up")
    list_display_links = ("where",)
    ordering = ("name",)
    search_fields = ("name",)
    actions = ("pause", "resume", "replay", "skip")
    shown = (
        "name",
        "state",
        "seq",
        "behind",
        "waits",
        "attempts",
        "failed_seq",
        "error",
        "handled",
        "failures",
        "given_up",
        "owner",
        "lease",
        "created_at",
        "moved_at",
        "epoch",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Handler]:
        letters = DeadLetter.objects.filter(handler=OuterRef("name")).order_by().values("handler")
        count = Subquery(letters.annotate(n=Count("pk")).values("n"), output_field=IntegerField())
        head = Subquery(LogHead.objects.values("seq")[:1])
        found = handler_status.with_times(super().get_queryset(request))
        return found.annotate(lag=head - F("seq"), letters=Coalesce(count, 0))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # To delete the row of a handler that is no longer in the code lets its log go.
        return super(ReadOnlyAdmin, self).has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: Handler) -> None:
        operations.forget(obj._state.db or "default", [obj.name])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Handler]) -> None:
        operations.forget(queryset.db, list(queryset.values_list("name", flat=True)))

    @admin.display(description=_("handler"), ordering="name")
    def where(self, handler: Handler) -> str:
        return handler.name

    @admin.display(description=_("state"))
    def state(self, handler: Handler) -> SafeString:
        text: object
        kind, text = _STATES[handler_status.state_of(handler)]
        if handler.stopped:
            text = format_html("{}: {}", text, handler.get_stopped_display())
        elif handler_status.is_stuck(handler):
            kind, text = "bad", format_html("{}, {}", text, _("stuck"))
        return format_html('<span class="realtime-state realtime-{}">{}</span>', kind, text)

    @admin.display(description=_("behind"))
    def behind(self, handler: Handler) -> str:
        lag: int | None = vars(handler)["lag"]
        return str(max(0, lag or 0))

    @admin.display(description=_("oldest unread"))
    def waits(self, handler: Handler) -> str:
        return _seconds(handler_status.lag_ms(handler) // 1_000)

    @admin.display(description=_("dead letters"))
    def given_up(self, handler: Handler) -> str:
        return str(vars(handler)["letters"])

    @admin.display(description=_("last error"))
    def error(self, handler: Handler) -> SafeString | str:
        return _text(handler.last_error)

    # --- what may be done -------------------------------------------------------------------------

    @admin.action(description=_("Pause selected handlers"), permissions=["control"])
    def pause(self, request: HttpRequest, found: QuerySet[Handler]) -> None:
        count = self.each(
            request, found, lambda one: operations.pause(found.db, one.name), "Paused."
        )
        self._say(
            request, count, ngettext("%d handler is paused.", "%d handlers are paused.", count)
        )

    @admin.action(description=_("Resume selected handlers"), permissions=["control"])
    def resume(self, request: HttpRequest, found: QuerySet[Handler]) -> None:
        count = self.each(
            request, found, lambda one: operations.resume(found.db, one.name), "Resumed."
        )
        self._say(request, count, ngettext("%d handler goes on.", "%d handlers go on.", count))

    @admin.action(description=_("Replay from a seq …"), permissions=["control"])
    def replay(self, request: HttpRequest, found: QuerySet[Handler]) -> HttpResponse | None:
        form = SeqForm(request.POST if "post" in request.POST else None)
        if not form.is_valid():
            return self.ask(
                request,
                found,
                form=form,
                title=_("Handle changes again"),
                question=_("These handlers begin again with the change of this seq:"),
                note=_(
                    "Each change from there on is handled once more, with the delivery id that it "
                    "had before."
                ),
            )
        seq: int = form.cleaned_data["seq"]
        done = f"Replayed from {seq}."
        count = self.each(
            request, found, lambda one: operations.replay(found.db, one.name, seq), done
        )
        words = ngettext("%d handler begins again.", "%d handlers begin again.", count)
        self._say(request, count, words)
        return None

    @admin.action(description=_("Skip the change that fails …"), permissions=["control"])
    def skip(self, request: HttpRequest, found: QuerySet[Handler]) -> HttpResponse | None:
        if "post" not in request.POST:
            return self.ask(
                request,
                found,
                title=_("Skip a change"),
                question=_("These handlers go on without the change that they stand at:"),
                note=_("Nothing keeps the change for them but the log, until it is pruned."),
            )
        count = self.each(
            request, found, lambda one: operations.skip(found.db, one.name), "Skipped."
        )
        words = ngettext("%d handler goes on behind it.", "%d handlers go on behind it.", count)
        self._say(request, count, words)
        return None

    def _say(self, request: HttpRequest, count: int, words: str) -> None:
        if count:
            self.message_user(request, words % count, messages.SUCCESS)


@admin.register(DeadLetter)
class DeadLetterAdmin(_ControlledAdmin):
    about = _(
        "Changes that a handler failed at as often as it may, and went on without. Each is kept "
        "here until it is sent again with success, or deleted."
    )
    list_display = ("where", "handler", "seq", "table", "error_line", "attempts", "age")
    list_display_links = ("where",)
    list_filter = ("handler",)
    search_fields = ("handler", "seq")
    ordering = ("-failed_at", "-pk")
    actions = ("send_again",)
    shown = ("handler", "seq", "body", "whole_error", "attempts", "failed_at", "epoch")

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        # A list by a part of the change would tell columns that are not shown.
        if lookup.partition(LOOKUP_SEP)[0] == "change":
            return False
        return super().lookup_allowed(lookup, value, request)

    # A handler writes by a connection of its own, which would wait for the request's transaction.
    @method_decorator(transaction.non_atomic_requests)
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(request, extra_context)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        return super().get_queryset(request).annotate(now=Now())

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # To delete one is to drop the change.
        return super(ReadOnlyAdmin, self).has_delete_permission(request, obj)

    @admin.display(description=_("change"), ordering="seq")
    def where(self, letter: DeadLetter) -> str:
        change, _withheld = _legible(letter.change)
        return f"{change.get('type', '')} {change.get('pk', '')}".strip() or str(letter.seq)

    @admin.display(description=_("table"))
    def table(self, letter: DeadLetter) -> str:
        return str(letter.change.get("table", "-"))

    @admin.display(description=_("error"))
    def error_line(self, letter: DeadLetter) -> str:
        return last_line(letter.error)

    @admin.display(description=_("failed"), ordering="failed_at")
    def age(self, letter: DeadLetter) -> SafeString:
        now = vars(letter)["now"]
        text = _("%s ago") % timesince(letter.failed_at, now, depth=1)
        return format_html('<span title="{}">{}</span>', letter.failed_at.isoformat(" "), text)

    @admin.display(description=_("change"))
    def body(self, letter: DeadLetter) -> SafeString:
        change, withheld = _legible(letter.change)
        return with_note(document(json.dumps(change), MAX_DOCUMENT), withheld)

    @admin.display(description=_("error"))
    def whole_error(self, letter: DeadLetter) -> SafeString | str:
        return _text(letter.error)

    @admin.action(description=_("Send selected changes again"), permissions=["control"])
    def send_again(self, request: HttpRequest, found: QuerySet[DeadLetter]) -> None:
        count = self.each(request, found, send_again, "Sent again.")
        if count:
            words = ngettext("%d change is sent again.", "%d changes are sent again.", count)
            self.message_user(request, words % count, messages.SUCCESS)


def _legible(change: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The change with the columns that are published today, as the log shows it, and the names of
    the others. Of a model that is not published any more, not the key either."""
    rows = [name for name in ("old", "new") if isinstance(change.get(name), dict)]
    if not rows:
        return change, []
    table = (change.get("schema"), change.get("table"))
    columns = next(
        (
            published.published_columns(entry.model)
            for entry in published.published()
            if (entry.schema, entry.table) == table
        ),
        None,
    )
    shown = dict(change)
    if columns is None:
        shown.pop("pk", None)
    withheld: set[str] = set()
    for name in rows:
        row = change[name]
        shown[name] = {column: row[column] for column in row if column in (columns or ())}
        withheld.update(row.keys() - shown[name].keys())
    return shown, sorted(withheld)


def _seconds(seconds: int) -> str:
    if not seconds:
        return "-"
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60:,} min"


def _text(text: str) -> SafeString | str:
    return format_html('<pre class="realtime-document">{}</pre>', text) if text else "-"


def last_line(error: str) -> str:
    """The line of a traceback that names the error, not too long."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return text if len(text) <= _ERROR_LENGTH else f"{text[:_ERROR_LENGTH]}…"
