"""The log in the admin, read-only."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.contrib.auth import get_user_model
from django.db import connections, models
from django.db.models import Func, Q, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.db.models.functions import Length
from django.http import HttpRequest
from django.utils.functional import lazy
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from auth_rls.access import authority
from auth_rls.admin.pickers import name_of_users
from auth_rls.admin.reader import Reader
from realtime.admin.actors import column_of, held, names_of
from realtime.admin.documents import (
    MAX_DOCUMENT,
    changed,
    document,
    moment,
    short_moment,
    with_note,
    without,
)
from realtime.admin.read_only import ReadOnlyAdmin
from realtime.event_log.table import UnknownRelation, relations
from realtime.models import (
    LogHead,
    PresenceMember,
    WalEntry,
    WalRelation,
)
from realtime.util.utf8 import repaired
from realtime.wal import published
from realtime.wal.vendor import vendor_of

_BIGINT = 2**63
# Images beyond this many bytes, both together, are not compared for the list.
_COMPARED = 100_000
# Of these the page withholds what is not published; of a key the search finds the whole alone.
_WITHHELD = frozenset({"old", "new", "pk_text"})
_WHOLE_KEY = frozenset({"pk_text", "pk_text__exact"})
# Names of changed columns in a line of the list.
_NAMED = 4


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
        return queryset if table is None else queryset.filter(_of_tables(Q(table_name=table)))


class KindFilter(admin.SimpleListFilter):
    """A filter by who needs the entries. Published rows alone are shown at first, since what
    decides access would drown them; all are where a table or words of a search are given."""

    title = _("kind")
    parameter_name = "kind"

    def __init__(self, request: HttpRequest, *others: Any) -> None:
        names = (SEARCH_VAR, TableFilter.parameter_name)
        self._searches = any(request.GET.get(name) for name in names)
        super().__init__(request, *others)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("published", _("Published rows")),
            ("internal", _("Internal entries")),
            ("all", _("All entries")),
        ]

    def value(self) -> str:
        given = super().value()
        if given in {"published", "internal", "all"}:
            return str(given)
        return "all" if self._searches else "published"

    def choices(self, changelist: Any) -> Iterator[Any]:
        _every, *ours = super().choices(changelist)
        yield from ours

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "all":
            return queryset
        internal = _of_tables(Q(table_name__in=_internal_tables()))
        return queryset.filter(internal if self.value() == "internal" else ~internal)


def _of_tables(condition: Q) -> Q:
    """Entries whose relation fits the condition. There are few relations."""
    found = WalRelation.objects.filter(condition).values_list("pk", flat=True)
    return Q(relation_id__in=list(found))


def _internal_tables() -> frozenset[str]:
    """The tables that are captured for Rowcast itself: what decides access, and stored broadcasts.
    Presence was, in older versions."""
    names = WalRelation.objects.values_list("table_name", flat=True).distinct()
    internal = {model._meta.db_table for model in published.internal_models()}
    internal.add(PresenceMember._meta.db_table)
    deciding = {model._meta.db_table for model in authority.watched()}
    shown = {entry.model._meta.db_table for entry in published.published()}
    return frozenset(names) & (internal | deciding) - shown


class _EntryChangeList(ChangeList):
    """Reads the names of a page's actors at once, and which columns its updates changed."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        owner: Any = self.model_admin
        owner.name_actors(request, self.result_list)
        _withhold_keys(self.result_list)
        found = _changed_columns(self.result_list)
        for entry in self.result_list:
            vars(entry)["changed_columns"] = found.get(entry.pk)


@admin.register(WalEntry)
class WalEntryAdmin(ReadOnlyAdmin):
    about = _(
        "Every committed change of a captured table, newest first, with the number under which it "
        "was sent. Entries of internal tables, such as those that decide access, are shown where "
        "the filter or a search asks for them."
    )
    documentation = "reference/capture"
    list_display = ("position", "at", "op", "table", "row_key", "changes", "who")
    list_filter = (KindFilter, "op", TableFilter)
    list_per_page = 50
    search_fields = ("table_name", "pk_text", "seq", "actor")
    search_help_text = format_lazy(
        _(
            "A table, a row key, a seq, or an actor by key or, where you may view all users, by "
            "{name}; several words must all fit."
        ),
        name=lazy(name_of_users, str)(),
    )
    # Unnumbered entries are the newest; ids follow the log closely and are indexed.
    ordering = ("-id",)
    show_full_result_count = False
    shown = (
        "position",
        "committed",
        "captured",
        "op",
        "table",
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

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        # A list by "old__contains" would tell a column that is not shown, character by character.
        if lookup.partition(LOOKUP_SEP)[0] in _WITHHELD and lookup not in _WHOLE_KEY:
            return False
        return super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        for word in search_term.split():
            actors = _actors(word) if self._may_name(request) else [word]
            fits = Q(pk_text=word) | Q(actor__in=actors)
            fits |= _of_tables(Q(table_name__icontains=word))
            if word.isascii() and word.isdigit() and len(word) < 20 and int(word) < _BIGINT:
                fits |= Q(seq=int(word))
            queryset = queryset.filter(fits)
        return queryset, False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> WalEntry | None:
        entry = super().get_object(request, object_id, from_field)
        if entry is not None:
            self.name_actors(request, [entry])
            _withhold_keys([entry])
        return entry

    def name_actors(self, request: HttpRequest, entries: Sequence[WalEntry]) -> None:
        """Note the usernames of the actors at the entries, for those who may view all users: a key
        of a user says no more than the rows do, a name does."""
        if not self._may_name(request):
            return
        names = names_of([entry.actor for entry in entries])
        for entry in entries:
            vars(entry)["actor_name"] = names.get(entry.actor)

    def _may_name(self, request: HttpRequest) -> bool:
        return Reader(request, self.admin_site).sees_all_rows(get_user_model())

    @admin.display(description="seq", ordering="seq")
    def position(self, entry: WalEntry) -> str:
        return str(_("not numbered yet")) if entry.seq is None else str(entry.seq)

    @admin.display(description=_("table name"), ordering="table_name")
    def table(self, entry: WalEntry) -> str:
        return entry.table_name or "-"

    @admin.display(description=_("row key"))
    def row_key(self, entry: WalEntry) -> str:
        """Not to be sorted by: the order would tell keys that are not shown."""
        return entry.pk_text or "-"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _EntryChangeList

    @admin.display(description=_("actor"), ordering="actor")
    def who(self, entry: WalEntry) -> SafeString | str:
        if entry.actor is None:
            return "-"
        name = vars(entry).get("actor_name")
        text = entry.actor if name is None else f"{name} ({entry.actor})"
        return format_html('<span class="realtime-actor">{}</span>', text)

    @admin.display(description=_("committed"), ordering="commit_us")
    def at(self, entry: WalEntry) -> SafeString | str:
        return short_moment(entry.commit_us)

    @admin.display(description=_("changed"))
    def changes(self, entry: WalEntry) -> SafeString | str:
        """The columns that an update changed, the first by name."""
        if entry.op != WalEntry.Op.UPDATE:
            return ""
        names = vars(entry).get("changed_columns")
        if names is None:
            text = str(_("too large to compare"))
        else:
            more = len(names) - _NAMED
            text = ", ".join(names[:_NAMED]) + (f" +{more}" if more > 0 else "")
        # Long names are broken behind their words.
        parts = ((part,) for part in re.findall(r"[^_]*_|[^_]+", text or str(_("nothing"))))
        broken = format_html_join("", "{}<wbr>", parts)
        return format_html('<span class="realtime-changes">{}</span>', broken)

    @admin.display(description=_("committed"), ordering="commit_us")
    def committed(self, entry: WalEntry) -> str:
        return moment(entry.commit_us)

    @admin.display(description=_("captured"), ordering="captured_us")
    def captured(self, entry: WalEntry) -> str:
        return moment(entry.captured_us)

    @admin.display(description=_("old row"))
    def old_image(self, entry: WalEntry) -> SafeString | str:
        return _image(entry, "old")

    @admin.display(description=_("new row"))
    def new_image(self, entry: WalEntry) -> SafeString | str:
        return _image(entry, "new")


def _actors(word: str) -> list[str]:
    """The actors that a word of a search may mean: the word itself, and the user of that name."""
    users = get_user_model()
    try:
        name = held(column_of(users._meta.get_field(users.USERNAME_FIELD)), word)
    except ValueError:
        return [word]
    named = users._base_manager.filter(**{users.USERNAME_FIELD: name})
    return [word, *map(str, named.values_list("pk", flat=True))]


def _changed_columns(entries: Iterable[WalEntry]) -> dict[int, list[str]]:
    """By the key of an update, the columns that it changed. Large images are left out."""
    updates = [entry.pk for entry in entries if entry.op == WalEntry.Op.UPDATE]
    if not updates:
        return {}
    found = WalEntry.objects.filter(pk__in=updates, old__isnull=False, new__isnull=False)
    as_bytes = vendor_of(connections[found.db]).as_bytes("%(expressions)s")
    old, new = (
        Func(name, template=as_bytes, output_field=models.BinaryField()) for name in ("old", "new")
    )
    small = found.annotate(size=Length("old") + Length("new")).filter(size__lte=_COMPARED)
    rows = list(small.values_list("pk", "relation_id", old, new))
    legible = _legible(found.db, {relation_id for _, relation_id, _, _ in rows})
    return {
        pk: [
            name
            for name in changed(bytes(before), bytes(after))
            if name in legible[relation_id].columns
        ]
        for pk, relation_id, before, after in rows
    }


def _image(entry: WalEntry, column: str) -> SafeString | str:
    """An image, with the cells that are shown."""
    using = entry._state.db or "default"
    as_bytes = vendor_of(connections[using]).as_bytes("%(expressions)s")
    raw = Func(column, template=as_bytes, output_field=models.BinaryField())
    found = WalEntry.objects.using(using).filter(pk=entry.pk).values_list(raw, flat=True).first()
    if found is None:
        return "-"
    legible = _legible(using, {entry.relation_id})[entry.relation_id]
    text, withheld = without(repaired(found).decode(), legible.columns)
    return with_note(document(text), withheld)


class _Legible(NamedTuple):
    """What readers of the log are shown of a relation's entries: columns, and whether the key."""

    columns: frozenset[str]
    key: bool


def _legible(using: str, ids: Collection[str]) -> dict[str, _Legible]:
    """By id of a relation: what subscribers may see of the table now, and all that was captured for
    policies alone. Nothing of a relation that is not kept."""
    found = {}
    for id_ in ids:
        try:
            relations.load(using, [id_])
        except UnknownRelation:
            found[id_] = _Legible(frozenset(), False)
            continue
        stored, now = relations[id_], relations.now(id_)
        columns = now.visible if stored.published else stored.columns
        found[id_] = _Legible(frozenset(column.name for column in columns), bool(now.key))
    return found


def _withhold_keys(entries: Iterable[WalEntry]) -> None:
    """Take the keys out of entries that have another key than is shown now."""
    by_alias: dict[str, list[WalEntry]] = {}
    for entry in entries:
        by_alias.setdefault(entry._state.db or "default", []).append(entry)
    for using, some in by_alias.items():
        legible = _legible(using, {entry.relation_id for entry in some})
        for entry in some:
            if entry.pk_text is not None and not legible[entry.relation_id].key:
                entry.pk_text = "-"


@admin.register(WalRelation)
class WalRelationAdmin(ReadOnlyAdmin):
    about = _(
        "The columns that captured tables had when their triggers were installed; entries refer to "
        "them."
    )
    documentation = "reference/capture"
    list_display = ("table_name", "schema_name", "installed_at", "short_id")
    list_filter = ("table_name",)
    search_fields = ("id", "table_name")
    ordering = ("table_name", "-installed_at")
    shown = ("id", "schema_name", "table_name", "installed_at", "shape")

    @admin.display(description="id", ordering="id")
    def short_id(self, relation: WalRelation) -> str:
        return relation.pk[:8]

    @admin.display(description=_("definition"))
    def shape(self, relation: WalRelation) -> SafeString:
        return document(relation.definition, MAX_DOCUMENT)


@admin.register(LogHead)
class LogHeadAdmin(ReadOnlyAdmin):
    about = _("The number of the last change of the log.")
    list_display = ("epoch", "seq", "committed")
    shown = ("epoch", "seq", "committed")

    @admin.display(description=_("committed"))
    def committed(self, head: LogHead) -> str:
        return moment(head.commit_us or None)
