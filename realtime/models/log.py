"""The log: entries, their numbers and relations, and the head.

Entries are written by database triggers and numbered by the sequencer; no code saves one through
its model.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from django.db import models
from django.db.models import F, OuterRef, Subquery

from realtime.models.own_table import NotInFixtures, OwnTable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class WalRelation(OwnTable):
    """The shape of a captured table at the time its triggers were installed.

    Named after the Relation message of PostgreSQL's logical replication: an entry has values, and
    its relation has their columns, types and key. Rows are never changed: a new list of columns is
    a new relation, so that an old entry reads the same for ever (RT-E1).
    """

    id = models.CharField(primary_key=True, max_length=32)
    schema_name = models.CharField(max_length=63)
    table_name = models.CharField(max_length=255)
    definition = models.TextField(help_text="realtime.event.Relation as JSON")
    installed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "realtime_wal_relation"
        verbose_name = "WAL relation"

    def __str__(self) -> str:
        return f"{self.schema_name}.{self.table_name} {self.id[:8]}"


class NumberedEntries(models.Manager["Any"]):
    """Entries with what stands elsewhere: `seq` and `commit_us` of their number, which are None for
    entries that have none yet, and `table_name` of their relation."""

    def get_queryset(self) -> models.QuerySet[Any]:
        relation = WalRelation.objects.filter(pk=OuterRef("relation_id"))
        return (
            super()
            .get_queryset()
            .annotate(
                seq=F("number__seq"),
                commit_us=F("number__commit_us"),
                table_name=Subquery(relation.values("table_name")),
            )
        )


class WalEntry(OwnTable):
    """One committed change of one row. Rows are inserted and deleted, never updated: its number is
    a row of `WalNumber`, and what it shares with others, such as its table, of `WalRelation`."""

    # Read by `objects` together with the entry. The table is None where its relation is lost.
    seq: int | None = None
    commit_us: int | None = None
    table_name: str | None = None

    class Op(models.TextChoices):
        INSERT = "INSERT"
        UPDATE = "UPDATE"
        DELETE = "DELETE"
        TRUNCATE = "TRUNCATE"

    id = models.BigAutoField(primary_key=True)
    op = models.CharField(max_length=8, choices=Op.choices)
    pk_text = models.TextField(verbose_name="row key", null=True)
    old = models.TextField(null=True)
    new = models.TextField(null=True)
    relation_id = models.CharField(max_length=32)
    txid = models.BigIntegerField(
        null=True,
        help_text="The writer's transaction; null for one of a program beside Django on SQLite",
    )
    captured_us = models.BigIntegerField(help_text="When the statement ran, microseconds")
    actor = models.TextField(
        null=True, help_text="Who wrote: the primary key of a user, or another name; or nobody"
    )

    in_fixtures: ClassVar[NotInFixtures] = NotInFixtures()
    objects: ClassVar[NumberedEntries] = NumberedEntries()

    class Meta:
        db_table = "realtime_wal"
        verbose_name = "WAL entry"
        verbose_name_plural = "WAL entries"

    def __str__(self) -> str:
        return f"{self.seq or 'unnumbered'} {self.op} {self.table_name} {self.pk_text}"

    @property
    def commit_timestamp(self) -> datetime | None:
        return None if self.commit_us is None else _EPOCH + timedelta(microseconds=self.commit_us)


class WalNumber(OwnTable):
    """The number of an entry, inserted by the sequencer. It is deleted with its entry, also
    by SQL (see `realtime.wal.vendor.Vendor.bind_numbers`)."""

    seq = models.BigIntegerField(primary_key=True)
    # Without a foreign key in the database, whose check would lock the entry, that is, write to it.
    entry = models.OneToOneField(
        WalEntry, models.DO_NOTHING, db_constraint=False, related_name="number"
    )
    commit_us = models.BigIntegerField(
        help_text="Microseconds since 1970, unique and rising with seq"
    )

    class Meta:
        db_table = "realtime_wal_number"
        verbose_name = "number of a WAL entry"
        verbose_name_plural = "numbers of WAL entries"

    def __str__(self) -> str:
        return str(self.seq)


class LogHead(OwnTable):
    """One row: the last number of the log, and the tailer that leads.

    `seq` and `commit_us` change in the transaction that numbers; `term`, `leader` and
    `lease_until_us` belong to `realtime.event_log.leadership`.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    epoch = models.CharField(max_length=32)
    seq = models.BigIntegerField(default=0)
    commit_us = models.BigIntegerField(default=0)
    term = models.BigIntegerField(default=0, help_text="Rises with every change of leader")
    leader = models.CharField(
        max_length=64, default="", blank=True, help_text="Id of the leading tailer, or empty"
    )
    lease_until_us = models.BigIntegerField(
        default=0, help_text="By the database's clock, microseconds since 1970"
    )

    epoch_us = models.BigIntegerField(
        default=0, help_text="When the epoch began, if another one came before it"
    )
    stamp = models.CharField(
        max_length=128,
        default="",
        blank=True,
        help_text="Which transaction wrote the row, and where: a restored row has another one's",
    )
    seen = models.TextField(
        db_default="",
        blank=True,
        help_text="A snapshot of the database all of whose entries have numbers, or nothing",
    )

    class Meta:
        db_table = "realtime_head"
        verbose_name = "log head"
        # There is one.
        verbose_name_plural = "log head"

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"
