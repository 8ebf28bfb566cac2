"""Topics, and broadcasts that are rows.

A program that wants a broadcast to be part of its transaction inserts a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now

from realtime.models.own_table import OwnTable


class Topic(OwnTable):
    """A topic of broadcasts and presence. It has no table: a topic is a name.

    Policies on its permissions decide what a subject may do on a private topic; their predicates
    have one column, `topic`, the name without `realtime:`.
    """

    row_actions = ("receive_broadcast", "send_broadcast", "view_presence", "track_presence")

    topic = models.CharField(primary_key=True, max_length=255)

    class Meta:
        managed = False
        default_permissions = ()
        permissions = [
            ("receive_broadcast", "Can receive broadcasts of a private topic"),
            ("send_broadcast", "Can send broadcasts to a private topic"),
            ("view_presence", "Can see who is present in a private topic"),
            ("track_presence", "Can be present in a private topic"),
        ]

    def __str__(self) -> str:
        return self.topic


class RandomId(models.Func):
    """A random UUID made by the database, because other programs insert rows too."""

    output_field = models.UUIDField()
    # A function that returns the SQL for a connection. `RealtimeConfig.ready` sets it.
    sql_on: ClassVar[Callable[[BaseDatabaseWrapper], str]]

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **context: Any) -> Any:
        return RandomId.sql_on(connection), []


class Message(OwnTable):
    """A broadcast that is part of the log: ordered with the changes of its transaction, never sent
    for a rollback, and kept for replay until it is pruned.

    Inserting a row sends it, from any program. `data` are bytes to send in place of `payload`.
    """

    # In the order of insertion, which times of day are not: a transaction has only one.
    number = models.BigAutoField(primary_key=True)
    id = models.UUIDField(db_default=RandomId(), help_text="What clients know it by")
    topic = models.TextField()
    event = models.TextField()
    payload = models.JSONField(null=True, blank=True)
    data = models.BinaryField(null=True, blank=True)
    private = models.BooleanField(db_default=False)
    kept = models.BooleanField(
        db_default=True, help_text="False: only passing through; no id, and no replay"
    )
    inserted_at = models.DateTimeField(db_default=Now())
    user_id = models.TextField(
        null=True, blank=True, help_text="The user who sent it to a private topic, if any"
    )

    class Meta:
        db_table = "realtime_message"
        # A project's own "message" is something else.
        verbose_name = "stored broadcast"
        indexes = [
            models.Index(fields=["topic", "private", "number"], name="realtime_message_topic"),
            models.Index(fields=["inserted_at"], name="realtime_message_age"),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.topic}"


class PassingBroadcast(OwnTable):
    """A broadcast on its way to the servers, of a process that no channel layer connects with them.
    See `realtime.topics.passing`."""

    number = models.BigAutoField(primary_key=True)
    mark = models.CharField(max_length=32, help_text="By which servers know that they have had it")
    topic = models.TextField()
    private = models.BooleanField()
    event = models.TextField()
    payload = models.BinaryField()
    encoding = models.SmallIntegerField(help_text="1 for JSON, 0 for bytes")
    user_id = models.TextField(blank=True)
    sent_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "realtime_passing"
        verbose_name = "passing broadcast"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.event} to {self.topic}"
