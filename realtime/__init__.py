"""Rowcast: committed row changes, sent live to those who may see them.

The public names are imported on first use, because an app package is imported before its models
may be.
"""

from __future__ import annotations

from auth_rls.lazy_names import lazy_names

__version__ = "0.2.0"

_EXPORTS = {
    "AccessRevoked": "realtime.change_stream.errors",
    "DeadLetter": "realtime.models",
    "Handler": "realtime.models",
    "ResyncRequired": "realtime.change_stream.errors",
    "SnapshotTruncated": "realtime.change_stream.errors",
    "SubscriptionEnded": "realtime.change_stream.errors",
    "Webhook": "realtime.models",
    "WebhookDelivery": "realtime.models",
    "abroadcast": "realtime.api",
    "apresence": "realtime.api",
    "broadcast": "realtime.api",
    "changes": "realtime.change_stream.stream",
    "actor": "realtime.wal.actor",
    "as_of": "realtime.row_history.past",
    "head": "realtime.api",
    "history": "realtime.row_history.changes",
    "iter_changes": "realtime.change_stream.iterator",
    "on_change": "realtime.handling.declare",
    "presence": "realtime.api",
    "publish": "realtime.wal.published",
    "receipt": "realtime.wal.receipts",
}

__all__ = [
    "AccessRevoked",
    "DeadLetter",
    "Handler",
    "ResyncRequired",
    "SnapshotTruncated",
    "SubscriptionEnded",
    "Webhook",
    "WebhookDelivery",
    "abroadcast",
    "actor",
    "apresence",
    "as_of",
    "broadcast",
    "changes",
    "head",
    "history",
    "iter_changes",
    "on_change",
    "presence",
    "publish",
    "receipt",
]

__getattr__, __dir__ = lazy_names(__name__, _EXPORTS)
