"""A position in the log for "as of", and whether the log can tell how a table was there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections, models
from django.utils import timezone

from realtime.event_log.table import relations, seq_at
from realtime.models import HistoryEntry, WalNumber, WalRelation
from realtime.row_history import keeping
from realtime.row_history.entries import TableEntries
from realtime.row_history.errors import HistoryLost
from realtime.wal import clock, published

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The clocks of a program and of its database differ, and SQLite's has milliseconds.
_AHEAD_US = 5_000_000


@dataclass(frozen=True, slots=True)
class Position:
    """Everything up to `seq` had happened. `columns` are the columns of the table that were
    captured from there on without a gap, and are published today."""

    seq: int
    columns: tuple[str, ...]


def position(entries: TableEntries, model: type[models.Model], at: Any) -> Position:
    """The position that a seq or a time means for this table.

    Raises HistoryLost where the log cannot tell how the table was there, ValueError for a seq or a
    time that is still to come, and TypeError for anything else. Up to five seconds ahead of the
    database's clock is the present.
    """
    us = None
    if isinstance(at, datetime):
        us = _micros(at)
        if us > clock.now_us(connections[entries.alias]) + _AHEAD_US:
            raise ValueError(f"{at.isoformat()} is still to come")
        found = _seq_at(entries, us)
        seq = entries.lost_seq if found is None else found
    elif isinstance(at, int) and not isinstance(at, bool):
        if not 0 <= at <= entries.head.seq:
            raise ValueError(f"the log has numbers from 0 to {entries.head.seq}, not {at}")
        seq = at
    else:
        raise TypeError(f"expected a seq or a datetime, not {type(at).__name__} {at!r}")
    label = model._meta.label
    if seq < entries.lost_seq or (us is not None and found is None and seq > 0):
        raise HistoryLost(
            f"the changes of {label} are kept from seq {entries.lost_seq + 1} on, not as of "
            f"{_words(at)}"
        )
    shapes = _shapes(entries)
    before = _before(entries, us, seq)
    _refuse_uncaptured(entries, label, at, before, shapes)
    return Position(seq, _columns(model, before, shapes))


def _before(entries: TableEntries, us: int | None, seq: int) -> Callable[[int], bool]:
    """A function for whether the position may lie before a moment."""
    if us is not None:
        return lambda moment: us < moment
    if entries.kept is not None and seq < keeping.lost_before(connections[entries.alias]):
        # Of other tables' entries nothing is known there, so the table's own one before it counts.
        kept = HistoryEntry.objects.using(entries.alias).filter(table=entries.kept, seq__lte=seq)
        last = kept.order_by("-seq").values_list("commit_us", flat=True).first() or 0
        return lambda moment: last < moment
    later = WalNumber.objects.using(entries.alias).filter(seq__gt=seq).order_by("seq")
    following = later.values_list("commit_us", flat=True).first()
    # Behind the last entry it is the present.
    return lambda moment: following is not None and following <= moment


def _refuse_uncaptured(
    entries: TableEntries,
    label: str,
    at: Any,
    before: Callable[[int], bool],
    shapes: list[tuple[int, str]],
) -> None:
    """Raise HistoryLost where changes after the position may not have been captured: in an older
    epoch of the log, or before the table was captured."""
    for since_us, why in (
        (entries.head.epoch_us, "a new epoch of the log began, because changes may be missing"),
        (shapes[0][0] if shapes else None, f"{label} was not captured before"),
    ):
        if since_us is None:
            raise HistoryLost(f"{label} was never captured")
        if since_us and before(since_us):
            moment = (_EPOCH + timedelta(microseconds=since_us)).isoformat(timespec="seconds")
            raise HistoryLost(f"as of {_words(at)} is not known: at {moment} {why}")


def _shapes(entries: TableEntries) -> list[tuple[int, str]]:
    """When each shape of the table was first captured, in microseconds, and its relation."""
    found = WalRelation.objects.using(entries.alias).filter(pk__in=entries.relations)
    rows = found.order_by("installed_at").values_list("installed_at", "pk")
    return [((when - _EPOCH) // timedelta(microseconds=1), id_) for when, id_ in rows]


def _columns(
    model: type[models.Model], before: Callable[[int], bool], shapes: list[tuple[int, str]]
) -> tuple[str, ...]:
    """The columns that every shape had which was in force at the position or later."""
    later = [id_ for when, id_ in shapes if before(when)]
    earlier = [id_ for _, id_ in shapes if id_ not in later]
    in_force = [*earlier[-1:], *later]
    names = [column.name for column in published.shape_of(model)]
    for id_ in in_force:
        here = {column.name for column in relations[id_].visible}
        names = [name for name in names if name in here]
    return tuple(names)


def _seq_at(entries: TableEntries, commit_us: int) -> int | None:
    """The seq of the last entry that is known to have been committed at or before a time."""
    found = [seq_at(connections[entries.alias], commit_us)]
    if entries.head.commit_us <= commit_us:
        found.append(entries.head.seq)
    if entries.kept is not None:
        found.append(keeping.last_at(entries.alias, entries.kept, commit_us))
    return max((seq for seq in found if seq is not None), default=None)


def _micros(at: datetime) -> int:
    if timezone.is_naive(at):
        at = timezone.make_aware(at, timezone.get_default_timezone())
    return (at - _EPOCH) // timedelta(microseconds=1)


def _words(at: Any) -> str:
    return at.isoformat() if isinstance(at, datetime) else f"seq {at}"
