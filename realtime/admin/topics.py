"""Who is present in topics, and the broadcasts that are part of the log."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from realtime.admin.documents import MAX_DOCUMENT, MAX_VALUE, cut, document, encode
from realtime.admin.read_only import ReadOnlyAdmin
from realtime.models import Message, PresenceMember


class TopicAdmin(ReadOnlyAdmin):
    """Of rows that belong to a topic."""

    @admin.display(description=_("topic is"), ordering="private")
    def open_to(self, row: PresenceMember | Message) -> str:
        # A cross for "not private" would look like a fault.
        return str(_("private") if row.private else _("public"))


@admin.register(PresenceMember)
class PresenceMemberAdmin(TopicAdmin):
    """Who is present, in which topic and process."""

    about = _("Who is present in which topic now: one line for each channel of a socket.")
    documentation = "reference/broadcast"
    list_display = ("key", "topic", "open_to", "user_id", "since", "process")
    list_filter = ("private",)
    list_select_related = ("process",)
    search_fields = ("topic", "key", "user_id")
    search_help_text = _("A topic, a key or a user's id.")
    ordering = ("topic", "since")
    shown = ("topic", "private", "key", "user_id", "meta", "since", "process", "id", "version")


@admin.register(Message)
class MessageAdmin(TopicAdmin):
    """Broadcasts that are part of the log."""

    about = _(
        "Broadcasts that were stored with a transaction, newest first, until they are pruned."
    )
    documentation = "reference/broadcast"
    list_display = ("number", "inserted_at", "topic", "open_to", "event")
    list_filter = ("private",)
    search_fields = ("topic", "event")
    ordering = ("-number",)
    show_full_result_count = False
    shown = ("number", "id", "inserted_at", "topic", "private", "event", "body")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        return super().get_queryset(request).defer("payload", "data")

    @admin.display(description=_("payload"))
    def body(self, message: Message) -> SafeString:
        if message.data is not None:
            return document(
                f"{len(message.data)} bytes: {cut(bytes(message.data).hex(), MAX_VALUE)}"
            )
        return document(encode(message.payload).decode(), MAX_DOCUMENT)
