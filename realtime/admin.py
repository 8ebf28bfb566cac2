"""The log in the admin, read-only."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import connections, models
from django.db.models import Func, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from realtime.models import (
    LogHead,
    Message,
    PresenceMember,
    Process,
    WalEntry,
    WalRelation,
)
from realtime.util.utf8 import repaired
from realtime.wal.vendor import vendor_of

# Characters shown of one value, and of a whole document.
MAX_VALUE = 500
MAX_DOCUMENT = 20_000

_decode_cells = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_BIGINT = 2**63


def pretty(document: str, max_value: int = MAX_VALUE) -> str:
    """A JSON object over several lines, its numbers digit for digit. Long values are cut, with a
    note of it; a text that is not JSON is returned unchanged."""
    try:
        cells = _decode_cells(document.encode())
        cut = {name: _cut_cell(cell, max_value) for name, cell in cells.items()}
        document = msgspec.json.format(_encode(cut), indent=2).decode()
    except (msgspec.DecodeError, RecursionError):
        pass
    return _cut(document, MAX_DOCUMENT)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … {len(text) - limit} more characters"


def _cut_cell(cell: msgspec.Raw, limit: int) -> msgspec.Raw:
    text = bytes(cell).decode()
    if len(text) <= limit:
        return cell
    # A long string is cut inside its quotes; anything else becomes the beginning of its text.
    shown = msgspec.json.decode(text) if text.startswith('"') else text
    return msgspec.Raw(_encode(_cut(shown, limit)))


def _moment(micros: int | None) -> str:
    if micros is None:
        return "-"
    seconds, rest = divmod(micros, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:06d}Z"


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows its `shown` fields; adds, changes and deletes nothing."""

    shown: tuple[str, ...] = ()

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


class TableFilter(admin.SimpleListFilter):
    """A filter by table. The choices come from the relations, so that the log is not read for
    them."""

    title = _("table")
    parameter_name = "table"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        tables = WalRelation.objects.values_list("table_name", flat=True).distinct()
        return [(table, table) for table in tables.order_by("table_name")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        table = self.value()
        return queryset if table is None else queryset.filter(table_name=table)


def _names(actors: Collection[str | None]) -> dict[str | None, str | None]:
    """The names of users for those actors that are primary keys of users; None for the others."""
    users = get_user_model()
    keys = {}
    for actor in set(actors) - {None}:
        try:
            keys[users._meta.pk.to_python(actor)] = actor
        except ValidationError:
            continue
    found = users._base_manager.in_bulk(list(keys))
    named = {str(pk): user.get_username() for pk, user in found.items()}
    return {actor: named.get(actor) for actor in actors if actor is not None}


class _NamingChangeList(ChangeList):
    """Reads the names of a page's actors at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        names = _names([entry.actor for entry in self.result_list])
        for entry in self.result_list:
            vars(entry)["actor_name"] = names.get(entry.actor)


@admin.register(WalEntry)
class WalEntryAdmin(ReadOnlyAdmin):
    list_display = ("position", "committed", "op", "table_name", "pk_text", "who")
    list_filter = ("op", TableFilter)
    search_fields = ("table_name", "pk_text", "seq", "actor")
    search_help_text = _(
        "A table, a row key, a seq, or an actor by key or username; several words must all fit."
    )
    # Unnumbered entries are the newest; ids follow the log closely and are indexed.
    ordering = ("-id",)
    show_full_result_count = False
    shown = (
        "position",
        "committed",
        "captured",
        "op",
        "table_name",
        "pk_text",
        "who",
        "old_image",
        "new_image",
        "relation_id",
        "txid",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[WalEntry]:
        # The images may be large and may not be valid UTF-8; they are read one by one.
        return super().get_queryset(request).defer("old", "new")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        for word in search_term.split():
            fits = Q(pk_text=word) | Q(table_name__icontains=word) | Q(actor__in=_actors(word))
            if word.isascii() and word.isdigit() and int(word) < _BIGINT:
                fits |= Q(seq=int(word))
            queryset = queryset.filter(fits)
        return queryset, False

    @admin.display(description="seq", ordering="seq")
    def position(self, entry: WalEntry) -> str:
        return str(_("not numbered yet")) if entry.seq is None else str(entry.seq)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _NamingChangeList

    @admin.display(description=_("actor"), ordering="actor")
    def who(self, entry: WalEntry) -> str:
        if entry.actor is None:
            return "-"
        known = vars(entry)
        name = known["actor_name"] if "actor_name" in known else _names([entry.actor])[entry.actor]
        return entry.actor if name is None else f"{name} ({entry.actor})"

    @admin.display(description=_("committed"), ordering="commit_us")
    def committed(self, entry: WalEntry) -> str:
        return _moment(entry.commit_us)

    @admin.display(description=_("captured"), ordering="captured_us")
    def captured(self, entry: WalEntry) -> str:
        return _moment(entry.captured_us)

    @admin.display(description=_("old row"))
    def old_image(self, entry: WalEntry) -> SafeString | str:
        return _image(entry, "old")

    @admin.display(description=_("new row"))
    def new_image(self, entry: WalEntry) -> SafeString | str:
        return _image(entry, "new")


def _actors(word: str) -> list[str]:
    """The actors that a word of a search may mean: the word itself, and the user of that name."""
    users = get_user_model()
    named = users._base_manager.filter(**{users.USERNAME_FIELD: word})
    return [word, *map(str, named.values_list("pk", flat=True))]


def _image(entry: WalEntry, column: str) -> SafeString | str:
    using = entry._state.db or "default"
    as_bytes = vendor_of(connections[using]).as_bytes("%(expressions)s")
    raw = Func(column, template=as_bytes, output_field=models.BinaryField())
    found = WalEntry.objects.using(using).filter(pk=entry.pk).values_list(raw, flat=True).first()
    if found is None:
        return "-"
    return format_html(
        '<pre style="margin:0;white-space:pre-wrap;overflow-wrap:anywhere">{}</pre>',
        pretty(repaired(found).decode()),
    )


@admin.register(WalRelation)
class WalRelationAdmin(ReadOnlyAdmin):
    list_display = ("id", "schema_name", "table_name", "installed_at")
    list_filter = ("table_name",)
    search_fields = ("id", "table_name")
    ordering = ("table_name", "-installed_at")
    shown = ("id", "schema_name", "table_name", "installed_at", "shape")

    @admin.display(description=_("definition"))
    def shape(self, relation: WalRelation) -> SafeString:
        return format_html(
            '<pre style="margin:0;white-space:pre-wrap">{}</pre>',
            pretty(relation.definition, MAX_DOCUMENT),
        )


@admin.register(LogHead)
class LogHeadAdmin(ReadOnlyAdmin):
    list_display = ("epoch", "seq", "committed")
    shown = ("epoch", "seq", "committed")

    @admin.display(description=_("committed"))
    def committed(self, head: LogHead) -> str:
        return _moment(head.commit_us or None)


@admin.register(Process)
class ProcessAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "kind",
        "host",
        "pid",
        "seen_at",
        "leading",
        "connections",
        "channels",
        "subscriptions",
        "position",
    )
    list_filter = ("kind",)
    ordering = ("kind", "host", "pid")
    shown = (
        "id",
        "kind",
        "host",
        "pid",
        "version",
        "started_at",
        "seen_at",
        "lease",
        "position",
        "behind",
        "connections",
        "channels",
        "subscriptions",
        "tailing",
        "leading",
        "holding_seq",
        "counters",
    )


@admin.register(PresenceMember)
class PresenceMemberAdmin(ReadOnlyAdmin):
    """Who is online, in which topic and process."""

    list_display = ("key", "topic", "private", "user_id", "since", "process")
    list_filter = ("private",)
    list_select_related = ("process",)
    search_fields = ("topic", "key", "user_id")
    search_help_text = _("A topic, a key or a user's id.")
    ordering = ("topic", "since")
    shown = ("topic", "private", "key", "user_id", "meta", "since", "process", "id", "version")


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    """Broadcasts that are part of the log."""

    list_display = ("number", "inserted_at", "topic", "private", "event")
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
            text = f"{len(message.data)} bytes: {_cut(bytes(message.data).hex(), MAX_VALUE)}"
        else:
            text = pretty(_encode(message.payload).decode(), MAX_DOCUMENT)
        return format_html('<pre style="margin:0;white-space:pre-wrap">{}</pre>', text)
