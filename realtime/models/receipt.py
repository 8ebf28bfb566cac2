"""By what users know their own changes again."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from realtime.models.own_table import OwnTable


class Receipt(OwnTable):
    """What a user who took a receipt of a transaction knows its changes by. Written by
    `realtime.wal.receipts` in that transaction, and pruned with its entries.

    It belongs to entries with this transaction and this actor that were numbered behind `after_seq`
    in `epoch`. There is none for an actor that is no user.
    """

    id = models.BigAutoField(primary_key=True)
    txid = models.BigIntegerField()
    actor = models.TextField(help_text="The user who wrote, as entries name it")
    text = models.CharField(max_length=64, help_text="What the user was given")
    epoch = models.CharField(max_length=32, help_text="Of the log when it was taken; or nothing")
    after_seq = models.BigIntegerField(help_text="The head of the log when it was taken")
    taken_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "realtime_receipt"
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["txid", "actor"], name="realtime_receipt_of"),
        ]
        indexes = [models.Index(fields=["taken_at"], name="realtime_receipt_age")]

    def __str__(self) -> str:
        return f"{self.text} of {self.actor}"
