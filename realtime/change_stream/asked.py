"""What the arguments of `changes` and `iter_changes` ask for. Reads no database, and refuses what
can be seen to be wrong without one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

from django.db import models

from auth_rls.subjects.subject import Subject
from realtime.change_stream.errors import AccessRevoked
from realtime.change_stream.querysets import Choice, choice_of
from realtime.protocol.cursor import Cursor, parse_cursor
from realtime.protocol.filters import FilterError, parse_filter
from realtime.protocol.join import ANY, Binding, SnapshotOption
from realtime.wal import published
from realtime.wal.published import Published

EVENTS = ("INSERT", "UPDATE", "DELETE")

AnyModel = type[models.Model]


@dataclass(frozen=True, slots=True)
class Asked:
    """The bindings on one published model, and whose rights count."""

    model: AnyModel
    table: str
    bindings: tuple[Binding, ...]
    subject: Subject


def asked_for(
    model_or_queryset: Any,
    *,
    subject: Any,
    events: str | Iterable[str],
    filter: str | None,
    since: Any,
    snapshot: bool,
    live: bool,
) -> Asked:
    """The arguments of `changes`, read. Raises as that does."""
    entry, choice = _rows(model_or_queryset)
    names = _events(events)
    cursor = _since(since)
    for name, value in (("snapshot", snapshot), ("live", live)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} is True or False, not {value!r}")
    if live and names != (ANY,):
        raise ValueError(
            "live keeps a set of rows exact by INSERT, UPDATE and DELETE together: it needs "
            "events='*'"
        )
    if snapshot and not {ANY, "INSERT"} & set(names):
        raise ValueError(
            "the rows of a snapshot come as INSERT: it needs events='*', or INSERT among them"
        )
    text = _filter(filter, entry)
    bindings = tuple(
        Binding(
            id=number,
            event=name,
            schema=entry.schema,
            table=entry.table,
            filter=text,
            select=choice.select,
            since=cursor,
            snapshot=SnapshotOption() if snapshot and name in (ANY, "INSERT") else None,
            live=live,
            condition=choice.condition,
        )
        for number, name in enumerate(names, start=1)
    )
    return Asked(entry.model, entry.table, bindings, subject_asking(subject))


def subject_asking(subject: Any) -> Subject:
    """The subject that `subject` stands for. Raises TypeError, and AccessRevoked for a user who is
    inactive."""
    if subject is None:
        return Subject.service()
    if isinstance(subject, Subject):
        return subject
    if isinstance(subject, type) or not hasattr(subject, "is_authenticated"):
        raise TypeError(
            "subject is None (the service role), a Django user or an auth_rls.Subject, not "
            f"{type(subject).__name__}{'; give request.user' if hasattr(subject, 'META') else ''}"
        )
    if subject.is_authenticated and not getattr(subject, "is_active", False):
        raise AccessRevoked("the user is inactive")
    return Subject.from_user(subject)


# --- what ---------------------------------------------------------------------------------------


def _rows(given: Any) -> tuple[Published, Choice]:
    if isinstance(given, type) and issubclass(given, models.Model):
        return _published(given), Choice()
    if isinstance(given, models.QuerySet):
        return _published(given.model), choice_of(given)
    if isinstance(given, models.Manager):
        raise TypeError(f"changes() takes a model or a queryset, not a manager: give {given}.all()")
    raise TypeError(f"changes() takes a model class or a queryset, not {type(given).__name__}")


def _published(model: AnyModel) -> Published:
    concrete = model._meta.concrete_model or model
    for entry in published.declared():
        if entry.model._meta.label_lower == concrete._meta.label_lower:
            problem = published.problem(entry)
            if problem is not None:
                raise ValueError(
                    f"{concrete._meta.label} cannot be followed: {problem.message} ({problem.id}) "
                    f"{problem.hint}"
                )
            return entry
    raise ValueError(
        f"{concrete._meta.label} is not published, so its changes are not in the log: put "
        "@realtime.publish before the class, or realtime.publish(Model) into the ready() of an app "
        "for a model of another one, then run manage.py migrate or manage.py realtime_triggers"
    )


def _events(events: Any) -> tuple[str, ...]:
    given = (events,) if isinstance(events, str) else events
    if not isinstance(given, Iterable):
        raise TypeError(f"events is '*', one of {', '.join(EVENTS)} or several, not {events!r}")
    names: dict[str, None] = {}
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"events are texts such as 'INSERT', not {name!r}")
        if name.upper() not in (ANY, *EVENTS):
            raise ValueError(_unknown_event(name))
        names[name.upper()] = None
    if not names:
        raise ValueError(f"events names none: give '*' or some of {', '.join(EVENTS)}")
    if ANY in names or len(names) == len(EVENTS):
        return (ANY,)
    return tuple(name for name in EVENTS if name in names)


def _unknown_event(name: str) -> str:
    if name.upper() == "TRUNCATE":
        return "a TRUNCATE is no event: it ends the changes with ResyncRequired"
    close = get_close_matches(name.upper(), EVENTS, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"there is no event {name!r}: give '*' or some of {', '.join(EVENTS)}{meant}"


def _filter(text: Any, entry: Published) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        raise TypeError(f"filter is a text such as 'status=eq.paid', not {type(text).__name__}")
    kinds = {column.name: column.kind for column in published.shape_of(entry.model)}
    try:
        parse_filter(text, kinds)
    except FilterError as error:
        hint = f" {error.hint}" if error.hint else ""
        raise ValueError(f"filter {text!r} of {entry.table}: {error.message}.{hint}") from None
    return text


def _since(since: Any) -> Cursor | None:
    if since is None:
        return None
    if isinstance(since, datetime):
        if since.utcoffset() is None:
            raise ValueError(
                f"since {since.isoformat()} has no time zone: give an aware datetime, such as "
                "timezone.now()"
            )
        # Up to and including this moment, as a commit_timestamp is.
        since = since.isoformat() if since.utcoffset() == timedelta(0) else _utc(since)
    elif isinstance(since, bool) or not isinstance(since, int | str):
        raise TypeError(
            "since is a seq, '<epoch>:<seq>', the text of a commit_timestamp or an aware datetime, "
            f"not {type(since).__name__}"
        )
    cursor = parse_cursor(since)
    if cursor is None or (cursor.seq is None and cursor.commit_us is None):
        raise ValueError(
            f"since {since!r} cannot be read: give a seq, '<epoch>:<seq>', the text of a "
            "commit_timestamp or an aware datetime"
        )
    return cursor


def _utc(moment: datetime) -> str:
    offset = moment.utcoffset() or timedelta(0)
    return f"{(moment.replace(tzinfo=None) - offset).isoformat()}+00:00"
