"""Who is present in topics, as each process wrote it."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from realtime.models.own_table import OwnTable
from realtime.models.process import Process


class PresenceMember(OwnTable):
    """One presence in a topic: that of one channel of one socket, which a server process has.

    Written by `realtime.topics.presence.store`. A row counts while the lease of its process lasts.
    """

    id = models.CharField(primary_key=True, max_length=64, help_text="The channel, unique for ever")
    process = models.ForeignKey(Process, models.CASCADE, related_name="+")
    topic = models.TextField()
    private = models.BooleanField()
    key = models.TextField(help_text="What clients know the member by; several may share one")
    version = models.BigIntegerField(help_text="Rises with every change of the meta")
    meta = models.JSONField()
    user_id = models.TextField(null=True, help_text="Whom the channel asks as, if anybody")
    since = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "realtime_presence"
        verbose_name = "member present"
        verbose_name_plural = "members present"
        # Unlike `view_presence`, which is about topics.
        default_permissions = ("view",)
        indexes = [models.Index(fields=["topic", "private"], name="realtime_presence_topic")]

    def __str__(self) -> str:
        return f"{self.key} in {self.topic}"


class PresenceNumber(OwnTable):
    """The number of a process's last write to `PresenceMember`, set in the transaction of the rows.

    Other processes compare it with what they know of the process. On PostgreSQL both tables are
    unlogged, so a crash of the database empties both, and each process writes its members anew.
    """

    # Without a foreign key, which would keep servers of an older version from deleting a process.
    process = models.CharField(primary_key=True, max_length=64)
    number = models.BigIntegerField()

    class Meta:
        db_table = "realtime_presence_number"
        verbose_name = "number of presence writes"
        verbose_name_plural = "numbers of presence writes"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.number} of {self.process}"
