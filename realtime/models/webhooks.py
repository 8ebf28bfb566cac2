"""Webhooks, and their deliveries."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from realtime.models.own_table import OwnTable


def webhook_secret() -> str:
    """A new secret by the Standard Webhooks scheme: 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def every_webhook_event() -> list[str]:
    """The events of a new webhook: every change of a row."""
    return ["INSERT", "UPDATE", "DELETE"]


class Webhook(OwnTable):
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


class WebhookDelivery(OwnTable):
    """A change on its way to a webhook's receiver, or there, with what came of each attempt.

    Made in the transaction that moves the webhook's cursor in the log. `body` is what is sent, the
    same each time, but for columns that are not published any more.
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
