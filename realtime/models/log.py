"""Tables of the log: entries, relations, the head, processes, presence, topics, messages,
handlers of changes, and webhooks.

Entries are written by database triggers and numbered by the sequencer; no code saves one through
its model. A process writes its own row (`realtime.process.registry`) and the presence of its
channels (`realtime.topics.presence.store`). A program that wants a broadcast to be part of its
transaction inserts a message.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Now
from django.utils import timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NotInFixtures(models.Manager["Any"]):
    """The default manager of the log's own tables, which returns no rows, so that `dumpdata` leaves
    them out. See `realtime.wal.fixtures`."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().none()


class WalRelation(models.Model):
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

    # The first one is the default.
    in_fixtures = NotInFixtures()
    objects = models.Manager()

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


class WalEntry(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = NumberedEntries()

    class Meta:
        db_table = "realtime_wal"
        verbose_name = "WAL entry"
        verbose_name_plural = "WAL entries"

    def __str__(self) -> str:
        return f"{self.seq or 'unnumbered'} {self.op} {self.table_name} {self.pk_text}"

    @property
    def commit_timestamp(self) -> datetime | None:
        return None if self.commit_us is None else _EPOCH + timedelta(microseconds=self.commit_us)


class WalNumber(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_wal_number"
        verbose_name = "number of a WAL entry"
        verbose_name_plural = "numbers of WAL entries"

    def __str__(self) -> str:
        return str(self.seq)


class HistoryTable(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

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


class HistoryEntry(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

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


class Receipt(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_receipt"
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["txid", "actor"], name="realtime_receipt_of"),
        ]
        indexes = [models.Index(fields=["taken_at"], name="realtime_receipt_age")]

    def __str__(self) -> str:
        return f"{self.text} of {self.actor}"


class LogHead(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_head"
        verbose_name = "log head"
        # There is one.
        verbose_name_plural = "log head"

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"


class Process(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_process"
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return f"{self.kind} {self.host}:{self.pid}"


class Topic(models.Model):
    """A topic of broadcasts and presence. It has no table: a topic is a name.

    Policies on its permissions decide what a subject may do on a private topic; their predicates
    have one column, `topic`, the name without `realtime:`.
    """

    row_actions = ("receive_broadcast", "send_broadcast", "view_presence", "track_presence")

    topic = models.CharField(primary_key=True, max_length=255)

    in_fixtures = NotInFixtures()
    objects = models.Manager()

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


class Message(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

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


class PassingBroadcast(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_passing"
        verbose_name = "passing broadcast"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.event} to {self.topic}"


class PresenceMember(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_presence"
        verbose_name = "member present"
        verbose_name_plural = "members present"
        # Unlike `view_presence`, which is about topics.
        default_permissions = ("view",)
        indexes = [models.Index(fields=["topic", "private"], name="realtime_presence_topic")]

    def __str__(self) -> str:
        return f"{self.key} in {self.topic}"


class PresenceNumber(models.Model):
    """The number of a process's last write to `PresenceMember`, set in the transaction of the rows.

    Other processes compare it with what they know of the process. On PostgreSQL both tables are
    unlogged, so a crash of the database empties both, and each process writes its members anew.
    """

    # Without a foreign key, which would keep servers of an older version from deleting a process.
    process = models.CharField(primary_key=True, max_length=64)
    number = models.BigIntegerField()

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_presence_number"
        verbose_name = "number of presence writes"
        verbose_name_plural = "numbers of presence writes"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.number} of {self.process}"


class Handler(models.Model):
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

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_handler"
        # To change one is to pause, resume or move it; to delete one, to forget where it stood.
        default_permissions = ("view", "change", "delete")

    def __str__(self) -> str:
        return self.name


class HandlerDone(models.Model):
    """A change behind the cursor of a handler with `concurrency` that is done already, while
    earlier ones are not. Inserted in the transaction of the handler's own writes."""

    handler = models.CharField(max_length=200)
    seq = models.BigIntegerField()

    in_fixtures = NotInFixtures()
    objects = models.Manager()

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


class DeadLetter(models.Model):
    """A change that a handler with `on_failure="dead_letter"` failed at, kept when the handler went
    on. `change` is what `realtime.handling.hand_over.message` makes of it."""

    handler = models.CharField(max_length=200)
    epoch = models.CharField(max_length=32)
    seq = models.BigIntegerField()
    change = models.JSONField()
    error = models.TextField()
    attempts = models.IntegerField()
    failed_at = models.DateTimeField(db_default=Now())

    in_fixtures = NotInFixtures()
    objects = models.Manager()

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


def webhook_secret() -> str:
    """A new secret by the Standard Webhooks scheme: 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def every_webhook_event() -> list[str]:
    """The events of a new webhook: every change of a row."""
    return ["INSERT", "UPDATE", "DELETE"]


class Webhook(models.Model):
    """An address of another server that gets the changes of tables as signed requests.

    Sent with the rights of the service role: all rows, of the published columns. See
    `realtime.webhooks`, which also writes what stands below `enabled`.
    """

    class Event(models.TextChoices):
        INSERT = "INSERT"
        UPDATE = "UPDATE"
        DELETE = "DELETE"
        TRUNCATE = "TRUNCATE"

    #: By field, why a webhook cannot work. `RealtimeConfig.ready` sets it.
    problems: ClassVar[Callable[[Webhook], dict[str, str]]]

    name = models.CharField(max_length=100, unique=True)
    url = models.CharField(
        "URL",
        max_length=2000,
        help_text="Where requests are sent: https://…, without a user name. Redirects are not "
        "followed.",
    )
    tables = models.JSONField(default=list, help_text="Published tables, as a list of names.")
    events = models.JSONField(
        default=every_webhook_event, help_text="INSERT, UPDATE, DELETE and TRUNCATE, as a list."
    )
    filter = models.TextField(
        default="",
        blank=True,
        help_text="Send rows that fit alone, such as status=eq.paid,total=gt.100. An UPDATE is "
        "judged by its new row, a DELETE by its old one.",
    )
    columns = models.JSONField(
        default=list,
        blank=True,
        help_text="Send these columns alone, as a list of names. The key always comes too. Empty: "
        "all published columns.",
    )
    headers = models.JSONField(
        default=dict,
        blank=True,
        help_text='Sent with each request, as an object: {"Authorization": "Bearer …"}.',
    )
    secret = models.CharField(
        max_length=128,
        default=webhook_secret,
        help_text="Signs each request, so that the receiver knows who sent it. Give it to the "
        "receiver and to nobody else.",
    )
    enabled = models.BooleanField(
        default=True, help_text="Changes that are committed while it is off are not sent."
    )

    disabled_reason = models.TextField(default="", blank=True, editable=False)
    former_secret = models.CharField(max_length=128, default="", blank=True, editable=False)
    former_until = models.DateTimeField(
        null=True, editable=False, help_text="Until when the former secret signs, too"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    failures = models.IntegerField(
        default=0, editable=False, help_text="Requests that failed since the last that did not"
    )
    failing_since = models.DateTimeField(null=True, editable=False)
    rests_until = models.DateTimeField(
        null=True, editable=False, help_text="Until when no request is sent, after a failure"
    )
    sender = models.CharField(
        max_length=64, default="", blank=True, editable=False, help_text="Id of who sends now"
    )
    sender_until = models.DateTimeField(
        null=True, editable=False, help_text="Until when that one alone sends"
    )

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_webhook"

    def __str__(self) -> str:
        return self.name

    def renew_secret(self) -> None:
        """Give it a new secret, and save it. For a day the former one signs, too, so that the
        receiver can be given the new one meanwhile."""
        self.former_secret, self.secret = self.secret, webhook_secret()
        self.former_until = timezone.now() + timedelta(days=1)
        self.save(update_fields=["secret", "former_secret", "former_until"])

    def clean(self) -> None:
        """Raises ValidationError, by field."""
        problems = dict(Webhook.problems(self))
        # The default manager, by which Django would look, returns no rows.
        same = Webhook.objects.using(self._state.db or None).filter(name=self.name)
        if same.exclude(pk=self.pk).exists():
            problems["name"] = "There is a webhook of this name."
        if problems:
            raise ValidationError(problems)


class WebhookDelivery(models.Model):
    """A change on its way to a webhook's receiver, or there, with what came of each attempt.

    Made in the transaction that moves the webhook's cursor in the log. `body` is what is sent, the
    same each time.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="+")
    delivery_id = models.CharField(
        max_length=100,
        unique=True,
        help_text="The header webhook-id: the same for each attempt, and when it is sent again",
    )
    seq = models.BigIntegerField(null=True, help_text="The number of the change in the log")
    table = models.CharField(max_length=255)
    event = models.CharField(max_length=8)
    body = models.TextField()
    state = models.CharField(max_length=9, choices=State.choices, default=State.PENDING)
    by_hand = models.BooleanField(
        default=False, help_text="Asked for in the admin: sent once, also while disabled"
    )
    created_at = models.DateTimeField(db_default=Now())
    due_at = models.DateTimeField(db_default=Now(), help_text="When it is sent or sent again")
    finished_at = models.DateTimeField(null=True)
    failures = models.IntegerField(default=0)
    attempts = models.JSONField(
        default=list,
        help_text="What came of each attempt, the last ones: at, status, error, excerpt, seconds",
    )

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        db_table = "realtime_webhook_delivery"
        verbose_name = "webhook delivery"
        verbose_name_plural = "webhook deliveries"
        # An administrator sends again or waits; nothing is written by hand.
        default_permissions = ("view", "change")
        indexes = [
            models.Index(fields=["webhook", "state", "id"], name="realtime_webhook_state"),
            models.Index(fields=["finished_at"], name="realtime_webhook_finished"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.table} {self.delivery_id}"
