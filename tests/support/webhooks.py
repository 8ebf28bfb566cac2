"""Webhooks and deliveries as rows, for tests of those who read them."""

from __future__ import annotations

from typing import Any

from realtime.models import Webhook, WebhookDelivery


def webhook(url: str = "https://hooks.example/", **values: Any) -> Webhook:
    count = Webhook.objects.count()
    values = {"name": f"hook {count}", "tables": ["zoo_note"], "url": url, **values}
    return Webhook.objects.create(**values)


def delivery(of: Webhook, number: int = 1, **values: Any) -> WebhookDelivery:
    values = {
        "delivery_id": f"msg_{of.pk}_{number}",
        "seq": number,
        "table": "zoo_note",
        "event": "INSERT",
        "body": f'{{"number":{number}}}',
        **values,
    }
    return WebhookDelivery.objects.create(webhook=of, **values)
