"""`realtime.history`: the changes of one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

from django.db import models

from auth_rls.sql.columns import columns_of, concrete
from auth_rls.sql.rows import canonical
from realtime import conf
from realtime.event_log.event import DatabaseEvent
from realtime.row_history.entries import Entry, Key, entries_of
from realtime.row_history.sight import Sight
from realtime.row_history.walk import walk
from realtime.subscriptions.change import Change, of_event
from realtime.subscriptions.change_payload import shown_columns
from realtime.wal import published


def history(
    instance: models.Model, *, subject: Any = None, most_searched: int | None = None
) -> RowHistory:
    """The changes of one row of a published model, the newest first, as far as the log and the
    model's own history reach.

    A row is followed through changes of its key; what had the same key before and was deleted
    counts as the same row. So a deleted row has a history, too: any instance with its key will do.

    `subject`, a `Subject`, a Django user or a request, is shown what the stream would show it under
    today's policies, and nothing of a row that is hidden from it today. By default it is the
    service role, as trusted code asks. Columns that are not published are never shown. The actor is
    shown to those who bypass policies, and of own changes.

    `most_searched`: look at so many numbers of the log at most, beside what is kept for the model
    itself; the log has no index by rows. See `RowHistory.complete`.

    Read when it is first needed, and then once. Raises LookupError for a model that is not
    published, ValueError for an instance without a primary key, TypeError for what is no instance.
    """
    return history_of(instance, subject, most_searched=most_searched)


def history_of(
    instance: models.Model, subject: Any, *, actors: bool = False, most_searched: int | None = None
) -> RowHistory:
    """`history`, with all `actors` where a page may show them to all who may view the object."""
    if not isinstance(instance, models.Model):
        raise TypeError(f"expected a model instance, not {type(instance).__name__}")
    model = _published(type(instance))
    key = key_of(instance, model)
    sight = Sight(subject, model, conf.current().DATABASE, actors=actors)
    return RowHistory(instance.pk, key, sight, most_searched)


class RowHistory(Sequence[Change]):
    """The changes of a row, the newest first. It is read step by step as it is iterated over;
    `len` and negative indexes read all."""

    def __init__(self, pk: Any, key: Key, sight: Sight, most_searched: int | None) -> None:
        self._pk = pk
        self._key = key
        self._sight = sight
        self._most = most_searched
        self._changes: list[Change] = []
        self._transactions: list[int | None] = []
        self._rest: Iterator[tuple[Change, int | None]] | None = None
        self._ended = False
        self._cut_at: int | None = None

    @property
    def complete(self) -> bool:
        """Whether the search reached the beginning of what is kept. Reads all."""
        self._read(None)
        return self._cut_at is None

    @property
    def searched_to(self) -> int | None:
        """The seq after which the search stopped because of `most_searched`; None if it did not.
        Reads all."""
        self._read(None)
        return self._cut_at

    def with_transactions(self) -> Iterator[tuple[Change, int | None]]:
        """Each change with the number that the log has for its transaction, if it has one."""
        for number, change in enumerate(self):
            yield change, self._transactions[number]

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> list[Change]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            known = index.stop is not None and index.stop >= 0 and (index.start or 0) >= 0
            self._read(index.stop if known else None)
        else:
            self._read(index + 1 if index >= 0 else None)
        return self._changes[index]

    def __iter__(self) -> Iterator[Change]:
        number = 0
        while True:
            self._read(number + 1)
            if number >= len(self._changes):
                return
            yield self._changes[number]
            number += 1

    def __len__(self) -> int:
        self._read(None)
        return len(self._changes)

    def __bool__(self) -> bool:
        self._read(1)
        return bool(self._changes)

    def __repr__(self) -> str:
        return f"<history of {self._sight.model._meta.label} {self._pk}>"

    def _read(self, number: int | None) -> None:
        """Have at least so many changes, or all."""
        if self._rest is None:
            self._rest = self._found()
        while not self._ended and (number is None or len(self._changes) < number):
            found = next(self._rest, None)
            if found is None:
                self._ended = True
            else:
                self._changes.append(found[0])
                self._transactions.append(found[1])

    def _found(self) -> Iterator[tuple[Change, int | None]]:
        sight = self._sight
        here = sight.exists(self._pk)
        if here and sight.hides(self._pk):
            return
        entries = entries_of(conf.current().DATABASE, sight.model)
        stop = 0 if self._most is None else max(entries.head.seq - self._most, 0)
        # What is kept for the model itself is found by index.
        down_to = stop if stop > entries.copied else 0
        first = True
        for entry in walk(entries, self._key, down_to):
            if isinstance(entry, int):
                continue
            if first and not here and moved(entry) and not sight.everything:
                # Under the key that it has now the row may be hidden.
                return
            first = False
            if entry.event.seq and (change := shown(entry, sight)) is not None:
                yield change, entry.txid
        if down_to > entries.lost_seq:
            self._cut_at = down_to


def moved(newest: Entry) -> bool:
    """Whether a row that has this newest entry, and is not there, has left for another key."""
    return newest.event.op not in ("DELETE", "TRUNCATE")


def shown(entry: Entry, sight: Sight) -> Change | None:
    """The change as the subject gets it; None if it does not."""
    event = entry.event
    if event.op == "TRUNCATE":
        # All rows were deleted by it: shown to those alone who see every row.
        if not sight.everything:
            return None
        return of_event(event, sight.model, actor=sight.actor(event.actor))
    if _unnoticed(event, sight.columns):
        return None
    if not sight.image(event.old if event.op == "DELETE" else event.new):
        return None
    change = of_event(
        event,
        sight.model,
        sight.columns,
        show_old=sight.image(event.old),
        actor=sight.actor(event.actor),
    )
    return _narrowed(change, sight.columns)


def _unnoticed(event: DatabaseEvent, columns: tuple[str, ...]) -> bool:
    """Whether an UPDATE changed only columns that are not shown."""
    seen = shown_columns(event.relation, columns)
    if event.op != "UPDATE" or event.old is None or event.new is None:
        return False
    whole = len(seen) == len(event.relation.columns)
    return not whole and event.old.json(seen) == event.new.json(seen)


def _narrowed(change: Change, columns: Sequence[str]) -> Change:
    """The change without columns that are not published today, which were a part of the key."""
    keep = frozenset(columns)
    if keep.issuperset(change.columns):
        return change

    def narrow(row: Any) -> Any:
        return row and {name: value for name, value in row.items() if name in keep}

    return replace(
        change,
        columns=tuple(name for name in change.columns if name in keep),
        old=narrow(change.old),
        new=narrow(change.new),
    )


def _published(model: type[models.Model]) -> type[models.Model]:
    """The model of the table. Raises LookupError, CannotCapture."""
    model = concrete(model)
    published.shape_of(model)
    return model


def key_of(instance: models.Model, model: type[models.Model]) -> Key:
    """The key of the instance's row, as entries have it. Raises ValueError."""
    columns = columns_of(model)
    found = tuple(
        canonical(columns[str(field.column)], getattr(instance, field.attname))
        for field in model._meta.pk_fields
    )
    if None in found:
        raise ValueError(
            f"this {model._meta.verbose_name} has no primary key, so it has no history"
        )
    return found
