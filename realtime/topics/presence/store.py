"""The table `realtime_presence`. Runs in a database thread.

A row belongs to the process that wrote it and is deleted with that process. The log carries the
changes of the table to every process.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from django.db import transaction
from django.db.models import TextField
from django.db.models.functions import Cast, Now

from realtime.models import PresenceMember
from realtime.topics.presence.state import PresenceMeta

_BATCH = 200


class ProcessExpired(Exception):
    """The lease of this process expired, and its rows were deleted."""


class PresenceRow(msgspec.Struct, frozen=True):
    """A row to write: a member, its topic, and the id of its user, if any."""

    entry: PresenceMeta
    topic: str
    private: bool
    user_id: str | None = None


def read(alias: str, topic: str, private: bool) -> list[PresenceMeta]:
    """The members of a topic, in the order they came. Raises what the database raises."""
    rows = PresenceMember.objects.using(alias).filter(topic=topic, private=private)
    found = rows.order_by("since", "pk").annotate(text=Cast("meta", TextField()))
    return [
        PresenceMeta(id_, version, key, text.encode(), (user_id if private else None) or "")
        for id_, version, key, text, user_id in found.values_list(
            "pk", "version", "key", "text", "user_id"
        )
    ]


def versions(alias: str, ids: Collection[str]) -> dict[str, int]:
    """The versions of these members; those that are not present are left out. Raises what the
    database raises."""
    found: dict[str, int] = {}
    wanted = sorted(ids)
    for start in range(0, len(wanted), _BATCH):
        rows = PresenceMember.objects.using(alias).filter(pk__in=wanted[start : start + _BATCH])
        found.update(rows.values_list("pk", "version"))
    return found


def online(alias: str, topic: str, private: bool) -> dict[str, list[dict[str, Any]]]:
    """The metas of a topic's members, by key. Members of a process whose lease has expired are
    left out. Raises what the database raises."""
    rows = PresenceMember.objects.using(alias).filter(
        topic=topic, private=private, process__lease__gte=Now()
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for key, meta in rows.order_by("since", "pk").values_list("key", "meta"):
        found.setdefault(key, []).append(meta)
    return found


def write(
    alias: str,
    process: str,
    new: Collection[PresenceRow],
    changed: Collection[PresenceRow],
    gone: Collection[str],
    most: int | None = None,
) -> list[str]:
    """Insert, update and delete rows of a process, all or nothing. Returns the ids of new rows that
    were not inserted, because their topic has `most` members.

    Raises ProcessExpired when a row to change is missing, IntegrityError when the process has no
    row of its own, and whatever else the database raises.
    """
    table = PresenceMember.objects.using(alias)
    with transaction.atomic(using=alias):
        ids = sorted(gone)
        for start in range(0, len(ids), _BATCH):
            table.filter(pk__in=ids[start : start + _BATCH]).delete()
        refused = [] if most is None else _beyond(alias, new, most)
        table.bulk_create(
            [_model(process, row) for row in new if row.entry.id not in refused],
            batch_size=_BATCH,
            # A row exists already where an earlier write passed although it seemed to fail.
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=["process", "version", "meta", "user_id"],
        )
        models = [_model(process, row) for row in changed]
        if models and table.bulk_update(models, ["version", "meta", "user_id"], _BATCH) < len(
            models
        ):
            raise ProcessExpired
    return refused


def _beyond(alias: str, new: Collection[PresenceRow], most: int) -> list[str]:
    by_topic: dict[tuple[str, bool], list[str]] = {}
    for row in new:
        by_topic.setdefault((row.topic, row.private), []).append(row.entry.id)
    refused: list[str] = []
    for (topic, private), ids in by_topic.items():
        rows = PresenceMember.objects.using(alias).filter(topic=topic, private=private)
        # No more rows than can matter are read. A new row may be there already, as above.
        others = set(rows.values_list("pk", flat=True)[: most + len(ids)]) - set(ids)
        refused += ids[max(0, most - len(others)) :]
    return refused


def _model(process: str, row: PresenceRow) -> PresenceMember:
    return PresenceMember(
        id=row.entry.id,
        process_id=process,
        topic=row.topic,
        private=row.private,
        key=row.entry.key,
        version=row.entry.version,
        meta=msgspec.json.decode(row.entry.meta),
        user_id=row.user_id,
    )
