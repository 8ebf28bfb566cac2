"""What a webhook's row asks for, read and checked: by the form, and by the code that uses the row,
because SQL can write anything into it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from auth_rls.sql import stored_types
from realtime import conf
from realtime.models import Webhook
from realtime.protocol.filters import FilterError, parse_filter
from realtime.wal import published as registry
from realtime.wal.published import Published
from realtime.webhooks.destination import (
    Destination,
    check_destination,
    read_allowed,
    read_url,
)
from realtime.webhooks.headers import BadHeaders, check_headers
from realtime.webhooks.signing import BadSecret, check_secret

EVENTS: tuple[str, ...] = tuple(Webhook.Event.values)
# In an error.
_NAMED = 20


class BadWebhook(ValueError):
    """A webhook cannot work as it stands. `problems` are texts by field."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(" ".join(f"{field}: {text}" for field, text in problems.items()))
        self.problems = dict(problems)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which changes a webhook sends, and which columns of them, the keys among them; None for all
    that are published."""

    tables: tuple[Published, ...]
    events: tuple[str, ...]
    filter: str
    columns: frozenset[str] | None


@dataclass(frozen=True, slots=True, repr=False)
class Envelope:
    """Where a webhook's requests go, and what is in each of them. Has no text of its secrets."""

    destination: Destination
    headers: Mapping[str, str]


def problems_of(webhook: Webhook) -> dict[str, str]:
    """By field, why the webhook cannot work; empty if it can. Makes no query of names."""
    found: dict[str, str] = {}
    for read in (choice_of, envelope_of):
        try:
            read(webhook)
        except BadWebhook as error:
            found |= error.problems
    return found


def choice_of(webhook: Webhook) -> Choice:
    """The changes that a webhook asks for. Raises BadWebhook."""
    found: dict[str, str] = {}
    events = webhook.events
    if not _texts(events) or not events:
        found["events"] = f"A list of events: {', '.join(EVENTS)}."
    elif unknown := [event for event in events if event not in EVENTS]:
        found["events"] = f"There is no event {unknown[0]!r}. Events are {', '.join(EVENTS)}."
    tables: dict[tuple[str, str], Published] = {}
    if not _texts(webhook.tables) or not webhook.tables:
        found["tables"] = 'A list of published tables, such as ["shop_order"].'
    else:
        for name in webhook.tables:
            entry = table_named(name)
            if entry is None:
                found["tables"] = _unknown_table(name)
                break
            tables[entry.schema, entry.table] = entry
    if webhook.columns is not None and not _texts(webhook.columns):
        found["columns"] = 'A list of columns, such as ["id", "status"]; empty for all.'
    elif "tables" not in found:
        found |= _check_columns(webhook.columns or (), tables.values())
    if not isinstance(webhook.filter, str):
        found["filter"] = "A filter is a text, such as status=eq.paid."
    elif "tables" not in found:
        for entry in tables.values():
            kinds = {column.name: column.kind for column in registry.shape_of(entry.model)}
            fits = {name: stored_types.fit_of(entry.model, name) for name in kinds}
            try:
                parse_filter(webhook.filter, kinds, fits)
            except FilterError as error:
                hint = f" {error.hint}" if error.hint else ""
                found["filter"] = f"On {entry.table}: {error.message}.{hint}"
                break
    if found:
        raise BadWebhook(found)
    columns = None
    if webhook.columns:
        keys = (registry.key_of(entry.schema, entry.table) for entry in tables.values())
        columns = frozenset(webhook.columns).union(*keys)
    return Choice(tuple(tables.values()), tuple(events), webhook.filter, columns)


def envelope_of(webhook: Webhook) -> Envelope:
    """Where and how a webhook's requests are sent. Raises BadWebhook."""
    found: dict[str, str] = {}
    destination = None
    try:
        allowed = read_allowed(conf.current().WEBHOOK_ALLOW)
        destination = read_url(webhook.url)
        check_destination(destination, allowed)
    except ValueError as error:
        found["url"] = str(error)
    try:
        check_headers(webhook.headers or {})
    except BadHeaders as error:
        found["headers"] = str(error)
    try:
        check_secret(webhook.secret)
    except BadSecret as error:
        found["secret"] = str(error)
    if found or destination is None:
        raise BadWebhook(found)
    return Envelope(destination, dict(webhook.headers or {}))


def table_named(name: str) -> Published | None:
    """The published table of this name: as the database has it, with its schema ("public.a_note"),
    or as Django names its model ("a.Note")."""
    entries = registry.published()
    for entry in entries:
        if name in (entry.table, f"{entry.schema}.{entry.table}"):
            return entry
    low = name.lower()
    return next((entry for entry in entries if entry.model._meta.label_lower == low), None)


def _check_columns(names: Collection[str], tables: Collection[Published]) -> dict[str, str]:
    known = {column.name for entry in tables for column in registry.shape_of(entry.model)}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name[:100], sorted(known), n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            return {"columns": f"No published column has the name {name[:100]!r}.{meant}"}
    return {}


def _unknown_table(name: str) -> str:
    tables = sorted(entry.table for entry in registry.published())
    close = difflib.get_close_matches(name[:100], tables, n=1)
    if close:
        return f"{name[:100]!r} is no published table. Did you mean {close[0]!r}?"
    more = " …" if len(tables) > _NAMED else ""
    listed = ", ".join(tables[:_NAMED]) or "none"
    return f"{name[:100]!r} is no published table. Published tables: {listed}{more}."


def _texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
