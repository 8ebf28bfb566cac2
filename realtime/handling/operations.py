"""What a person may do to a handler: pause, resume, replay, skip, forget.

Each raises the term of the handler's row, so that what runs at the moment is void: after the call
nothing of it is committed any more.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from django.db import connections, transaction

from realtime.event_log.table import oldest_seq, read_rows, relations
from realtime.handling import cursors, registry
from realtime.handling.matching import Matcher, UnfitHandler
from realtime.models import Handler, HandlerDone
from realtime.wal.head import Head, read_head


class CannotDo(Exception):
    """The text says why, in a line."""


def pause(alias: str, name: str) -> str:
    """Let a handler do nothing until it is resumed. Raises CannotDo."""
    row, _ = _find(alias, name)
    _change(alias, name, paused=True)
    return f"{name} is paused at {row.seq}."


def resume(alias: str, name: str) -> str:
    """Let a handler go on that was paused or stands still. Raises CannotDo."""
    row, head = _find(alias, name)
    seq, told = row.seq, ""
    if row.epoch != head.epoch and seq > head.seq:
        told = f" The log ends at {head.seq}, before its cursor {seq}: it goes on from its end."
        seq = head.seq
    if row.stopped == Handler.Stopped.LOST:
        kept = oldest_seq(connections[alias], after=seq)
        seq, missed = (head.seq, head.seq - seq) if kept is None else (kept - 1, kept - 1 - seq)
        told = f" {missed} changes that are not kept any more are left out."
    _change(alias, name, paused=False, seq=seq, epoch=head.epoch, **_UNTROUBLED)
    return f"{name} goes on after {seq}.{told}"


def replay(alias: str, name: str, first: int) -> str:
    """Give a handler every change again from seq `first` on. Raises CannotDo."""
    row, head = _find(alias, name)
    oldest = oldest_seq(connections[alias])
    lowest = head.seq + 1 if oldest is None else oldest
    if not lowest <= first <= head.seq + 1:
        raise CannotDo(f"The log keeps {lowest} to {head.seq}; {first} is not in it.")
    with transaction.atomic(using=alias):
        _change(alias, name, seq=first - 1, epoch=head.epoch, **_UNTROUBLED)
        HandlerDone.objects.using(alias).filter(handler=name).delete()
    still = " It is paused: resume it." if row.paused else ""
    return f"{name} goes on with {first}, where it stood at {row.seq}.{still}"


def skip(alias: str, name: str) -> str:
    """Leave out the change that a handler stands at. Raises CannotDo."""
    row, head = _find(alias, name)
    if row.epoch != head.epoch:
        raise CannotDo(f"The log began anew since {name} ran. Resume it, or replay from a number.")
    seq = row.failed_seq if row.attempts or row.stopped else None
    if seq is None:
        seq = _next(alias, row, head)
    if seq is None:
        raise CannotDo(f"{name} stands at no change: it has had every one.")
    with transaction.atomic(using=alias):
        _change(alias, name, **_UNTROUBLED)
        mark = HandlerDone(handler=name, seq=seq)
        HandlerDone.objects.using(alias).bulk_create([mark], ignore_conflicts=True)
    still = " It is paused: resume it." if row.paused else ""
    return f"{name} leaves change {seq} out and goes on.{still}"


def forget(alias: str, names: Collection[str]) -> None:
    """Delete the rows of handlers, so that the log is not kept for them. One that the code still
    has begins anew, where a new one begins."""
    with transaction.atomic(using=alias):
        Handler.objects.using(alias).filter(pk__in=names).delete()
        HandlerDone.objects.using(alias).filter(handler__in=names).delete()


# Of a handler that goes on.
_UNTROUBLED: dict[str, Any] = {
    "stopped": "",
    "attempts": 0,
    "failed_seq": None,
    "last_error": "",
}


def _change(alias: str, name: str, **values: Any) -> None:
    Handler.objects.using(alias).filter(pk=name).update(**cursors.UNOWNED, **values)


def _find(alias: str, name: str) -> tuple[Handler, Head]:
    """The row, made if the code has the handler and no process has run it yet."""
    head = read_head(connections[alias])
    rows = Handler.objects.using(alias)
    row = rows.filter(pk=name).first()
    definition = registry.named(name)
    if row is None and definition is not None:
        cursors.create(alias, name, definition.start, head, oldest_seq(connections[alias]))
        row = rows.filter(pk=name).first()
    if row is None:
        known = {*rows.values_list("pk", flat=True), *(d.name for d in registry.definitions())}
        raise CannotDo(unknown(name, known))
    return row, head


def unknown(name: str, known: set[str]) -> str:
    """That no handler has this name, and which there are."""
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f"There is no handler {name!r}. Did you mean {close[0]!r}?"
    there = f"There are: {', '.join(sorted(known))}." if known else "There is none at all."
    return f"There is no handler {name!r}. {there}"


def _next(alias: str, row: Handler, head: Head) -> int | None:
    """The first change that a handler has yet to get."""
    definition = registry.named(row.name)
    if definition is None:
        raise CannotDo(f"No code has the handler {row.name!r}, so its next change is not known.")
    try:
        matcher = Matcher(definition)
    except UnfitHandler as error:
        raise CannotDo(error.message) from None
    marks = HandlerDone.objects.using(alias).filter(handler=row.name)
    done = set(marks.values_list("seq", flat=True))
    after = row.seq
    while rows := read_rows(alias, after, head.seq):
        for event in relations.events(rows):
            if event.seq not in done and matcher.matches(event):
                return event.seq
        after = rows[-1].seq
    return None
