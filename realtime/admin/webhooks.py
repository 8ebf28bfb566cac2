"""Webhooks in the admin: made, tried and switched; and their deliveries, read and sent again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from auth_rls.documentation import page
from realtime import conf
from realtime.admin.documents import MAX_DOCUMENT, cut, document, with_note
from realtime.admin.read_only import ReadOnlyAdmin
from realtime.admin.webhook_form import WebhookForm
from realtime.models import Webhook, WebhookDelivery
from realtime.webhooks import deliveries
from realtime.webhooks.destination import BadUrl, read_url

_DOCUMENTATION = "how-to/webhooks"
# Of one state; more are not counted.
_COUNTED = 1_000
# What those who may only view are not shown.
_WITHHELD = frozenset({"url", "headers", "secret", "former_secret"})


@admin.register(Webhook)
class WebhookAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    form = WebhookForm
    list_display = ("name", "state", "to", "what", "waiting")
    list_filter = ("enabled",)
    list_per_page = 30
    search_fields = ("name",)
    ordering = ("name",)
    actions = ("send_test", "enable", "disable", "renew_secret")
    readonly_fields = ("state", "recent")
    about = _(
        "Each webhook sends the changes of its tables to another server, signed with its secret. "
        "Users who may add or change webhooks may read all rows of all published tables."
    )

    @property
    def media(self) -> Any:
        return super().media + ReadOnlyAdmin(WebhookDelivery, self.admin_site).media

    def get_fieldsets(self, request: HttpRequest, obj: Webhook | None = None) -> Any:
        known = self.has_change_permission(request, obj) if obj else True
        sent = ("url", "headers") if known else ()
        fieldsets: list[Any] = [
            (None, {"fields": ("name", "enabled", *(("state", "recent") if obj else ()))}),
            (
                _("What is sent"),
                {
                    "fields": ("tables", "events", "filter", "columns"),
                    "description": self.about,
                },
            ),
        ]
        if sent:
            fieldsets.insert(1, (_("Where it is sent"), {"fields": sent}))
            fieldsets.append((_("Secret"), {"fields": ("secret",), "classes": ("collapse",)}))
        return fieldsets

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # By `objects`, because the default manager is for fixtures and returns no rows.
        rows = Webhook.objects.using(conf.current().DATABASE)
        return rows.order_by(*self.get_ordering(request))

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        # A list by "secret__startswith" would tell the secret character by character.
        if lookup.partition(LOOKUP_SEP)[0] in _WITHHELD:
            return False
        return super().lookup_allowed(lookup, value, request)

    def save_model(self, request: HttpRequest, obj: Webhook, form: Any, change: bool) -> None:
        if "enabled" in form.changed_data and obj.enabled:
            _forgive(obj)
        obj.save(using=conf.current().DATABASE)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        for webhook in queryset:
            self.delete_model(request, webhook)

    def delete_model(self, request: HttpRequest, obj: Webhook) -> None:
        obj.delete(using=conf.current().DATABASE)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Deliveries go with their webhook; nobody needs a right to delete those."""
        names = [str(webhook) for webhook in objs]
        rows = WebhookDelivery.objects.using(conf.current().DATABASE)
        count = rows.filter(webhook__in=[webhook.pk for webhook in objs]).count()
        counted = {
            Webhook._meta.verbose_name_plural: len(names),
            WebhookDelivery._meta.verbose_name_plural: count,
        }
        return names, counted, set(), []

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"about": self.about, "documentation": page(_DOCUMENTATION)}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["documentation"] = page(_DOCUMENTATION)
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description=_("state"))
    def state(self, webhook: Webhook) -> SafeString:
        if not webhook.enabled:
            text: Any = _("off")
            if webhook.disabled_reason:
                text = _("disabled: %s") % webhook.disabled_reason
            kind = "gone" if not webhook.disabled_reason else "bad"
        elif webhook.failures and webhook.failing_since:
            since = _date(webhook.failing_since)
            text = _("failing since %s") % since
            kind = "late"
        else:
            kind, text = "ok", _("on")
        return format_html('<span class="realtime-state realtime-{}">{}</span>', kind, text)

    @admin.display(description=_("to"))
    def to(self, webhook: Webhook) -> str:
        """Without path and query, where tokens stand."""
        try:
            return str(read_url(webhook.url))
        except BadUrl:
            return "-"

    @admin.display(description=_("sends"))
    def what(self, webhook: Webhook) -> SafeString:
        tables = webhook.tables if isinstance(webhook.tables, list) else []
        events = webhook.events if isinstance(webhook.events, list) else []
        return format_html(
            '{} <span class="realtime-note">{}</span>',
            ", ".join(map(str, tables)),
            ", ".join(map(str, events)),
        )

    @admin.display(description=_("deliveries"))
    def waiting(self, webhook: Webhook) -> SafeString:
        return self.recent(webhook)

    @admin.display(description=_("deliveries"))
    def recent(self, webhook: Webhook) -> SafeString:
        rows = WebhookDelivery.objects.using(conf.current().DATABASE).filter(webhook=webhook)
        said = []
        for state in WebhookDelivery.State:
            count = rows.filter(state=state)[: _COUNTED + 1].count()
            if count:
                figure = f"{_COUNTED}+" if count > _COUNTED else str(count)
                said.append(f"{figure} {state.label.lower()}")
        url = reverse(f"{self.admin_site.name}:realtime_webhookdelivery_changelist")
        text = ", ".join(said) or _("none yet")
        return format_html('<a href="{}?webhook={}">{}</a>', url, webhook.pk, text)

    @admin.action(description=_("Send a test"), permissions=["change"])
    def send_test(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> HttpResponse:
        made = [deliveries.add_trial(webhook) for webhook in queryset]
        text = ngettext("%d test is being sent.", "%d tests are being sent.", len(made))
        self.message_user(
            request,
            text % len(made) + " " + str(_("Its outcome is shown here; load the page again.")),
            messages.SUCCESS,
        )
        url = reverse(f"{self.admin_site.name}:realtime_webhookdelivery_changelist")
        return HttpResponseRedirect(url)

    @admin.action(description=_("Enable selected webhooks"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        done = 0
        for webhook in queryset.filter(enabled=False):
            problems = Webhook.problems(webhook)
            if problems:
                text = " ".join(problems.values())
                self.message_user(request, f"{webhook.name}: {text}", messages.ERROR)
                continue
            webhook.enabled = True
            _forgive(webhook)
            webhook.save()
            self.log_change(request, webhook, [{"changed": {"fields": [str(_("Enabled"))]}}])
            done += 1
        text = ngettext("%d webhook enabled.", "%d webhooks enabled.", done)
        self.message_user(request, text % done, messages.SUCCESS)

    @admin.action(description=_("Disable selected webhooks"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        done = list(queryset.filter(enabled=True))
        for webhook in done:
            webhook.enabled = False
            webhook.save(update_fields=["enabled"])
            self.log_change(request, webhook, [{"changed": {"fields": [str(_("Enabled"))]}}])
        text = ngettext("%d webhook disabled.", "%d webhooks disabled.", len(done))
        self.message_user(request, text % len(done), messages.SUCCESS)

    @admin.action(
        description=_("Renew the secret; the former one signs, too, for a day"),
        permissions=["change"],
    )
    def renew_secret(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        done = list(queryset)
        for webhook in done:
            webhook.renew_secret()
            self.log_change(request, webhook, [{"changed": {"fields": [str(_("Secret"))]}}])
        text = ngettext(
            "%d secret renewed. Give it to the receiver within a day.",
            "%d secrets renewed. Give them to the receivers within a day.",
            len(done),
        )
        self.message_user(request, text % len(done), messages.SUCCESS)


def _forgive(webhook: Webhook) -> None:
    webhook.disabled_reason = ""
    webhook.failures, webhook.failing_since, webhook.rests_until = 0, None, None


class OfWebhook(admin.SimpleListFilter):
    """A filter by webhook. The default manager, by which Django would list them, returns none."""

    title = _("webhook")
    parameter_name = "webhook"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = Webhook.objects.using(conf.current().DATABASE).order_by("name")
        return [(str(pk), name) for pk, name in rows.values_list("pk", "name")[:200]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(webhook=value) if value and value.isdecimal() else queryset


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    about = _(
        "Changes on their way to the receivers of webhooks, or there, newest first, with the "
        "answer to each attempt. Users who may view deliveries may read the rows in them."
    )
    documentation = _DOCUMENTATION
    list_display = ("at", "outcome", "of", "event", "table", "last", "next")
    list_filter = ("state", OfWebhook, "event")
    list_per_page = 50
    list_select_related = ("webhook",)
    search_fields = ("delivery_id", "=table")
    search_help_text = _("A delivery id or a table.")
    ordering = ("-id",)
    show_full_result_count = False
    actions = ("send_again",)
    shown = (
        "outcome",
        "of",
        "delivery_id",
        "event",
        "table",
        "seq",
        "created_at",
        "due_at",
        "finished_at",
        "tried",
        "sent",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = WebhookDelivery.objects.using(conf.current().DATABASE)
        return rows.defer("body").order_by(*self.get_ordering(request))

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        # A list by "body__contains" would tell columns that are not shown.
        if lookup.partition(LOOKUP_SEP)[0] == "body":
            return False
        return super().lookup_allowed(lookup, value, request)

    @admin.display(description=_("made"), ordering="created_at")
    def at(self, delivery: WebhookDelivery) -> SafeString:
        return _moment(delivery.created_at)

    @admin.display(description=_("webhook"), ordering="webhook__name")
    def of(self, delivery: WebhookDelivery) -> str:
        return delivery.webhook.name

    @admin.display(description=_("state"), ordering="state")
    def outcome(self, delivery: WebhookDelivery) -> SafeString:
        kinds = {"delivered": "ok", "failed": "bad"}
        kind = kinds.get(delivery.state, "late" if delivery.failures else "gone")
        return format_html(
            '<span class="realtime-state realtime-{}">{}</span>', kind, delivery.get_state_display()
        )

    @admin.display(description=_("last answer"))
    def last(self, delivery: WebhookDelivery) -> str:
        return _answer(_attempts(delivery)[-1]) if _attempts(delivery) else "-"

    @admin.display(description=_("next attempt"), ordering="due_at")
    def next(self, delivery: WebhookDelivery) -> SafeString | str:
        return _moment(delivery.due_at) if delivery.state == "pending" else "-"

    @admin.display(description=_("attempts"))
    def tried(self, delivery: WebhookDelivery) -> SafeString | str:
        if not _attempts(delivery):
            return "-"
        lines = (
            (
                _moment(parse_datetime(str(attempt.get("at"))) or delivery.created_at),
                _answer(attempt),
                attempt.get("seconds"),
                document(str(attempt.get("excerpt") or ""), MAX_DOCUMENT),
            )
            for attempt in reversed(_attempts(delivery))
        )
        return format_html_join("", "<p>{} · <strong>{}</strong> · {} s</p>{}", lines)

    @admin.display(description=_("body"))
    def sent(self, delivery: WebhookDelivery) -> SafeString:
        body, withheld = deliveries.body_now(delivery)
        return with_note(document(body.decode(), MAX_DOCUMENT), withheld)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_resend_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("realtime.change_webhookdelivery"))

    @admin.action(description=_("Send again"), permissions=["resend"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        count = deliveries.send_again(queryset)
        text = ngettext("%d delivery is sent again.", "%d deliveries are sent again.", count)
        self.message_user(request, text % count, messages.SUCCESS)


def _date(at: Any) -> str:
    return date_format(localtime(at) if is_aware(at) else at, "DATETIME_FORMAT")


def _attempts(delivery: WebhookDelivery) -> list[dict[str, Any]]:
    given = delivery.attempts if isinstance(delivery.attempts, list) else []
    return [attempt for attempt in given if isinstance(attempt, dict)]


def _moment(at: Any) -> SafeString:
    return format_html(
        '<span title="{}" class="realtime-time">{}</span>',
        at.isoformat(" "),
        _date(at),
    )


def _answer(attempt: Any) -> str:
    status = attempt.get("status")
    return cut(str(attempt.get("error") or ""), 200) if status is None else str(status)
