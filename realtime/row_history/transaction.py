"""The changes of one transaction, for a page that shows one of them.

A transaction's changes stand together in the log, so they are looked for around the one that is
known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.db import connections

from realtime import conf
from realtime.event_log.table import relations
from realtime.models import HistoryEntry, WalNumber, WalRelation
from realtime.row_history.changes import shown
from realtime.row_history.entries import Entry, entries_at
from realtime.row_history.sight import Sight
from realtime.subscriptions.change import Change
from realtime.wal import published

# Numbers before and behind a change that are looked at, and changes that are given.
_AROUND = 500
_MOST = 200
# Entries read at once: their rows may be large.
_AT_ONCE = 20


def changes_of(
    change: Change, txid: int, subject: Any, viewable: Callable[[Any, Any], bool]
) -> list[Change]:
    """The changes of published rows in the transaction `txid` of a change, in order, as the subject
    sees them, each with its actor; of rows that are `viewable` (by model and primary key). Of a
    long transaction those near the change."""
    alias = conf.current().DATABASE
    around = {"seq__gte": change.seq - _AROUND, "seq__lte": change.seq + _AROUND}
    logged = WalNumber.objects.using(alias).filter(entry__txid=txid, **around)
    kept = HistoryEntry.objects.using(alias).filter(txid=txid, **around)
    seqs = {*logged.values_list("seq", flat=True), *kept.values_list("seq", flat=True)}
    relations.load(alias, WalRelation.objects.using(alias).values_list("pk", flat=True))
    models = {(entry.schema, entry.table): entry.model for entry in published.published()}
    sights: dict[Any, Sight] = {}
    found = []
    for entry in _entries(alias, sorted(seqs)):
        relation = entry.event.relation
        model = models.get((relation.schema, relation.table))
        if model is None or not relation.published:
            continue
        sight = sights.get(model)
        if sight is None:
            sight = sights[model] = Sight(subject, model, alias, actors=True)
        one = shown(entry, sight)
        if one is not None and viewable(model, one.pk) and not sight.hides(one.pk):
            found.append(one)
            if len(found) == _MOST:
                break
    return found


def _entries(alias: str, seqs: Sequence[int]) -> Iterator[Entry]:
    for start in range(0, len(seqs), _AT_ONCE):
        yield from entries_at(connections[alias], seqs[start : start + _AT_ONCE])
