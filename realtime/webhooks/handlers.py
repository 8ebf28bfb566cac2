"""Webhooks as handlers of changes: each enabled one has a cursor in the log, and its handler makes
deliveries of changes, in the transaction that moves the cursor.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction
from django.db.models import CharField, Exists, OuterRef, Value
from django.db.models.functions import Cast, Concat
from django.db.models.signals import post_delete, post_save

from realtime import conf
from realtime.handling import cursors, registry
from realtime.handling.definition import HEAD, HandlerDefinition
from realtime.handling.handled_change import HandledChange
from realtime.models import Handler, Webhook, WebhookDelivery
from realtime.wal.head import find_head
from realtime.webhooks import deliveries
from realtime.webhooks.payload import body_of
from realtime.webhooks.rules import BadWebhook, choice_of
from realtime.webhooks.sending import wake

logger = logging.getLogger("realtime.webhooks")

PREFIX = "webhook:"
"""Of the names of their handlers; the key of the webhook follows."""

_BATCH = 200
# The database alone can fail them.
_ATTEMPTS = 1_000


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Makes deliveries of changes. Equal values do the same."""

    webhook: int
    columns: frozenset[str] | None

    def __call__(self, changes: Sequence[HandledChange]) -> None:
        alias = conf.current().DATABASE
        deliveries.add(alias, [self._delivery(change) for change in changes])
        transaction.on_commit(wake, using=alias)

    def _delivery(self, change: HandledChange) -> WebhookDelivery:
        body = body_of(
            change.type, change.schema, change.table, change.new, change.old, self.columns
        )
        return WebhookDelivery(
            webhook_id=self.webhook,
            delivery_id=f"msg_{change.delivery_id}",
            seq=change.seq,
            table=change.table,
            event=change.type,
            body=body.decode(),
        )


def connect() -> None:
    """Have webhooks run as handlers, from the moment that they are saved."""
    registry.add_stored(definitions)
    post_save.connect(_saved, sender=Webhook, dispatch_uid="realtime.webhooks")
    post_delete.connect(_deleted, sender=Webhook, dispatch_uid="realtime.webhooks")


def name_of(webhook: int) -> str:
    """The name of a webhook's handler."""
    return f"{PREFIX}{webhook}"


def definitions() -> list[HandlerDefinition]:
    """The handlers of the enabled webhooks. A webhook that cannot be is disabled with the reason.
    Cursors of others are deleted, so that they hold nothing of the log, and begin at its head when
    they are enabled. In a database thread."""
    alias = conf.current().DATABASE
    found = []
    for webhook in Webhook.objects.using(alias).filter(enabled=True).order_by("pk"):
        try:
            choice = choice_of(webhook)
        except BadWebhook as error:
            deliveries.disable(webhook, f"It cannot be as it stands. {error}")
            continue
        found.append(
            HandlerDefinition(
                name=name_of(webhook.pk),
                models=tuple(entry.model for entry in choice.tables),
                call=Enqueue(webhook.pk, choice.columns),
                events=choice.events,
                filter=choice.filter,
                batch=_BATCH,
                attempts=_ATTEMPTS,
            )
        )
    _settle(alias)
    return found


def _settle(alias: str) -> None:
    """Delete the cursors of webhooks that are not enabled, and those that were stopped, which begin
    anew at the head."""
    rows = Handler.objects.using(alias).filter(name__startswith=PREFIX)
    for cursor in rows.exclude(stopped=""):
        # A receiver misses more if its webhook stands still.
        logger.error(
            "webhook %s missed changes behind seq %s, and goes on with new ones: %s",
            cursor.name.removeprefix(PREFIX),
            cursor.seq,
            cursor.last_error or cursor.get_stopped_display(),
            extra={"action": "webhook_gap"},
        )
        cursor.delete()
    name = Concat(Value(PREFIX), Cast("pk", CharField()), output_field=CharField())
    enabled = Webhook.objects.using(alias).filter(enabled=True).annotate(cursor=name)
    unused = rows.filter(~Exists(enabled.filter(cursor=OuterRef("name"))))
    if unused.exists():
        unused.delete()


def _saved(instance: Webhook, raw: bool, using: str, **kwargs: Any) -> None:
    """Give an enabled webhook its cursor in the transaction that saves it, so that what is
    committed after it is sent, whenever a worker starts."""
    alias = conf.current().DATABASE
    if raw or using != alias:
        return
    if not instance.enabled:
        _deleted(instance, using)
        return
    head = find_head(connections[alias])
    if head is not None:
        cursors.create(alias, name_of(instance.pk), HEAD, head, None)


def _deleted(instance: Webhook, using: str, **kwargs: Any) -> None:
    if using == conf.current().DATABASE:
        Handler.objects.using(using).filter(pk=name_of(instance.pk)).delete()
