"""Processes that run."""

from __future__ import annotations

from django.db import models

from realtime.models.own_table import OwnTable


class Process(OwnTable):
    """A process that runs: a server, a tailer or a worker. Written by `realtime.process.registry`.

    A row counts while its lease lasts. What belongs to the process, its read hold and its presence
    rows, ends with the lease. All times are by the database's clock.
    """

    class Kind(models.TextChoices):
        SERVER = "server"
        TAILER = "tailer"
        WORKER = "worker"

    id = models.CharField(primary_key=True, max_length=64)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    version = models.CharField(max_length=32)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    lease = models.DateTimeField(help_text="Until when the row is good")
    position = models.BigIntegerField(default=0, help_text="Seq of the last event it handed on")
    behind = models.BigIntegerField(
        default=0, help_text="How many events a server had yet to hand on when it was seen"
    )
    connections = models.IntegerField(default=0)
    channels = models.IntegerField(default=0)
    subscriptions = models.IntegerField(default=0, help_text="Channels that listen to changes")
    tailing = models.BooleanField(
        default=False, help_text="Whether it numbers the log, or stands by to do so"
    )
    leading = models.BooleanField(default=False, help_text="Whether it numbers the log")
    holding_seq = models.BigIntegerField(
        null=True, help_text="The lowest seq it still reads; nothing from there on is pruned"
    )
    counters = models.JSONField(default=dict)

    class Meta:
        db_table = "realtime_process"
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return f"{self.kind} {self.host}:{self.pid}"
