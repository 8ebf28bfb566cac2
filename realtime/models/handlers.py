"""Handlers of changes: their cursors, and what they did not handle."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from realtime.models.own_table import OwnTable


class Handler(OwnTable):
    """A handler of changes (`realtime.on_change`): how far it has come in the log, and who runs it.

    The row is made by the first process that runs the handler, and stays when the code goes.
    Written by `realtime.handling.cursors`; times are by the database's clock.
    """

    class Stopped(models.TextChoices):
        NOT = "", "no"
        FAILED = "failed", "a change failed at every attempt"
        LOOP = "loop", "its writes made it run again and again"
        LOST = "lost", "changes it had yet to read are not kept any more"
        EPOCH = "epoch", "the log began anew"

    name = models.CharField(primary_key=True, max_length=200)
    epoch = models.CharField(max_length=32, help_text="Of the log that `seq` is a number of")
    seq = models.BigIntegerField(help_text="Everything up to this number is done")
    paused = models.BooleanField(default=False)
    stopped = models.CharField(
        max_length=8, choices=Stopped.choices, blank=True, default="", help_text="Why, or nothing"
    )
    attempts = models.IntegerField(default=0, help_text="Failed ones, of the change it stands at")
    failed_seq = models.BigIntegerField(null=True, help_text="The change that failed last, if any")
    failed_at = models.DateTimeField(null=True, help_text="When an attempt failed last, if any did")
    tried_seq = models.BigIntegerField(
        null=True,
        help_text="The change that is tried alone, after a process ended that had the handler",
    )
    last_error = models.TextField(
        blank=True, default="", help_text="Why it stands, or why the last attempt failed"
    )
    handled = models.BigIntegerField(default=0, help_text="How many changes it has handled")
    failures = models.BigIntegerField(default=0, help_text="How many attempts have failed")
    term = models.BigIntegerField(
        default=0,
        help_text="Rises when the handler is taken, paused or moved, which voids older attempts",
    )
    owner = models.CharField(max_length=64, blank=True, default="", help_text="Who runs it, if any")
    lease = models.DateTimeField(null=True, help_text="Until when it is the owner's")
    created_at = models.DateTimeField(db_default=Now())
    moved_at = models.DateTimeField(db_default=Now(), help_text="When `seq` was written last")

    class Meta:
        db_table = "realtime_handler"
        # To change one is to pause, resume or move it; to delete one, to forget where it stood.
        default_permissions = ("view", "change", "delete")

    def __str__(self) -> str:
        return self.name


class HandlerDone(OwnTable):
    """A change behind the cursor of a handler with `concurrency` that is done already, while
    earlier ones are not. Inserted in the transaction of the handler's own writes."""

    handler = models.CharField(max_length=200)
    seq = models.BigIntegerField()

    class Meta:
        db_table = "realtime_handler_done"
        verbose_name = "change done by a handler"
        verbose_name_plural = "changes done by handlers"
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["handler", "seq"], name="realtime_handler_done_once")
        ]

    def __str__(self) -> str:
        return f"{self.seq} by {self.handler}"


class DeadLetter(OwnTable):
    """A change that a handler with `on_failure="dead_letter"` failed at, kept when the handler went
    on. `change` is what `realtime.handling.hand_over.message` makes of it."""

    handler = models.CharField(max_length=200)
    epoch = models.CharField(max_length=32)
    seq = models.BigIntegerField()
    change = models.JSONField()
    error = models.TextField()
    attempts = models.IntegerField()
    failed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "realtime_dead_letter"
        # To change one is to send it again.
        default_permissions = ("view", "change", "delete")
        constraints = [
            models.UniqueConstraint(
                fields=["handler", "epoch", "seq"], name="realtime_dead_letter_once"
            )
        ]
        indexes = [models.Index(fields=["failed_at"], name="realtime_dead_letter_age")]

    def __str__(self) -> str:
        return f"{self.seq} of {self.handler}"
