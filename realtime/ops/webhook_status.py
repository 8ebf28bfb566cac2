"""What webhooks have yet to send, read from the database.

The same in every process. Changes nothing; runs in a database thread and raises what the database
raises. That a webhook's changes are read from the log at all is told of its handler, `webhook:ID`.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
from django.db.models import Count, Min
from django.db.models.functions import Now

from realtime.models import Webhook, WebhookDelivery

# People make webhooks, by the admin. More of them are not shown.
MOST = 200


class WebhookStatus(msgspec.Struct, frozen=True):
    """A webhook. `state` is "sending", "failing" (its last request failed), "off" or "disabled" (it
    failed for too long, or cannot be). `failures` are the requests that failed since the last that
    did not; `pending` the deliveries yet to be sent, the oldest of which has waited `lag_ms`."""

    name: str
    state: str
    failures: int
    pending: int
    lag_ms: int


def read(alias: str) -> list[WebhookStatus]:
    """The webhooks of this database, by name; the first MOST."""
    pending = WebhookDelivery.objects.using(alias).filter(state=WebhookDelivery.State.PENDING)
    waiting = {
        webhook: (count, max(0, int((now - oldest) / timedelta(milliseconds=1))))
        for webhook, count, oldest, now in pending.order_by()
        .values_list("webhook")
        .annotate(count=Count("pk"), oldest=Min("created_at"), now=Now())
    }
    found = []
    for webhook in Webhook.objects.using(alias).order_by("name")[:MOST]:
        count, lag_ms = waiting.get(webhook.pk, (0, 0))
        found.append(
            WebhookStatus(webhook.name, state_of(webhook), webhook.failures, count, lag_ms)
        )
    return found


def state_of(webhook: Webhook) -> str:
    """The state of a webhook's row."""
    if not webhook.enabled:
        return "disabled" if webhook.disabled_reason else "off"
    return "failing" if webhook.failures else "sending"
