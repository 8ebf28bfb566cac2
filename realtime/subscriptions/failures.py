"""The log line of a predicate that could not be evaluated. Decides nothing."""

from __future__ import annotations

import logging

from realtime.subscriptions.index import Subscription

logger = logging.getLogger("realtime.subscribers")


def log_failure(subscription: Subscription, error: Exception) -> None:
    """Log that the predicate of a subscription raised. The event is then delivered to none of the
    subscribers that share the predicate."""
    logger.error(
        "a policy or filter on %s cannot be evaluated and denies: %s",
        subscription.table,
        error,
        extra={"action": "evaluation_failed"},
    )
