"""Entries that are kept longer than the log keeps them."""

from __future__ import annotations

from django.db import models

from realtime.models.own_table import OwnTable


class HistoryTable(OwnTable):
    """A table whose entries are kept longer than the log keeps them: `@publish(history=...)`.

    Written by `realtime.row_history.keeping`. Rows are never deleted: a model that asks for no
    history any more is not `active`, and what was kept of it grows old and goes.
    """

    schema_name = models.CharField(max_length=63)
    table_name = models.CharField(max_length=255)
    days = models.FloatField(help_text="How long entries are kept")
    active = models.BooleanField(default=True, help_text="Whether new entries are kept")
    copied_seq = models.BigIntegerField(
        help_text="Entries up to this seq are copied; the log keeps those behind it"
    )
    lost_seq = models.BigIntegerField(
        default=0, help_text="Every entry after this seq is kept, here or in the log"
    )

    class Meta:
        db_table = "realtime_history_table"
        verbose_name = "table with a history"
        verbose_name_plural = "tables with a history"
        constraints = [
            models.UniqueConstraint(
                fields=["schema_name", "table_name"], name="realtime_history_table_name"
            )
        ]

    def __str__(self) -> str:
        return f"{self.schema_name}.{self.table_name}"


class HistoryEntry(OwnTable):
    """A numbered entry of a table with a history, copied before it is pruned from the log.

    The columns are those of `WalEntry` and `WalNumber`.
    """

    seq = models.BigIntegerField(primary_key=True)
    table = models.ForeignKey(
        HistoryTable, models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )
    commit_us = models.BigIntegerField()
    op = models.CharField(max_length=8)
    pk_text = models.TextField(null=True)
    key_start = models.CharField(
        max_length=100, null=True, help_text="The first characters of the key, for the index"
    )
    old = models.TextField(null=True)
    new = models.TextField(null=True)
    relation_id = models.CharField(max_length=32)
    txid = models.BigIntegerField(null=True)
    actor = models.TextField(null=True)

    class Meta:
        db_table = "realtime_history"
        verbose_name = "entry of a history"
        verbose_name_plural = "entries of histories"
        default_permissions = ()
        indexes = [
            models.Index(fields=["table", "seq"], name="realtime_history_table_seq"),
            models.Index(fields=["table", "key_start", "seq"], name="realtime_history_row"),
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.op} {self.pk_text}"
