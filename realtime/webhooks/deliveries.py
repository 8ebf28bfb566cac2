"""The rows of deliveries: made, taken by one sender at a time, and marked with what came of them.

A sender takes a webhook, not a delivery, so the deliveries of one webhook go out one after another.
What it took is its own until a time by the database's clock; a sender that was killed is followed
by another one after that. Every function runs in a database thread.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, transaction
from django.db.models import DateTimeField, Exists, ExpressionWrapper, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from realtime import conf
from realtime.models import Webhook, WebhookDelivery
from realtime.wal import published
from realtime.webhooks.answer import Answer
from realtime.webhooks.payload import narrowed, trial_body
from realtime.webhooks.retries import DELAYS, RESTS, delay_after, rest_after
from realtime.webhooks.rules import table_named

logger = logging.getLogger("realtime.webhooks")

LEASE_SECONDS = 25.0
"""How long a sender that does not renew it has a webhook: longer than a request may take."""

ATTEMPTS_KEPT = 20
"""Of one delivery, the last ones."""

FAILING = timedelta(seconds=sum(DELAYS))
"""After so long without a success a webhook is disabled: when its first delivery is given up."""

_PENDING = WebhookDelivery.State.PENDING
_LEASE = timedelta(seconds=LEASE_SECONDS)
_KEPT_BY_SIZE = timedelta(hours=72)
_PRUNED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Job:
    """A delivery to be sent now, with its webhook as it is now."""

    webhook: Webhook
    delivery: WebhookDelivery


def add(alias: str, deliveries: Iterable[WebhookDelivery]) -> None:
    """Store new deliveries. In the transaction that moves the cursor of their webhook."""
    # The same change again, after a cursor was set back, is the same delivery.
    WebhookDelivery.objects.using(alias).bulk_create(deliveries, ignore_conflicts=True)


def add_trial(webhook: Webhook) -> WebhookDelivery:
    """Make a delivery by which an administrator tries a webhook. It is sent once."""
    entry = next(filter(None, map(table_named, webhook.tables)), None)
    table, schema = ("", "") if entry is None else (entry.table, entry.schema)
    return WebhookDelivery.objects.using(webhook._state.db).create(
        webhook=webhook,
        delivery_id=f"msg_{webhook.pk}_test_{random.SystemRandom().getrandbits(64):x}",
        table=table,
        event="TEST",
        body=trial_body(schema, table).decode(),
        by_hand=True,
    )


def send_again(deliveries: QuerySet[WebhookDelivery]) -> int:
    """Have finished deliveries sent once more, at once, with the same id and body. Returns how
    many."""
    return deliveries.exclude(state=_PENDING).update(
        state=_PENDING, by_hand=True, due_at=Now(), finished_at=None, failures=0
    )


def body_now(delivery: WebhookDelivery) -> tuple[bytes, list[str]]:
    """The body as it may be sent and shown now, and the names of the columns that it has and that
    are not published any more: they are left out. Asks no database."""

    def shown(schema: str, table: str) -> Collection[str]:
        found = published.shown_now().get((schema, table))
        return () if found is None else found.columns

    return narrowed(delivery.body.encode(), shown)


# --- taken by a sender ----------------------------------------------------------------------------


def take(alias: str, sender: str, most: int, without: Collection[int] = ()) -> list[int]:
    """Take up to `most` webhooks that have something to send now and that no sender has; those that
    waited longest first. Returns their keys."""
    now = Now()
    due = WebhookDelivery.objects.using(alias).filter(
        webhook=OuterRef("pk"), state=_PENDING, due_at__lte=now
    )
    rested = Q(rests_until=None) | Q(rests_until__lte=now)
    free = Webhook.objects.using(alias).filter(_free())
    wanting = free.filter(
        Exists(due.filter(by_hand=True)) | (Q(enabled=True) & rested & Exists(due))
    ).exclude(pk__in=without)
    found = wanting.order_by(F("sender_until").asc(nulls_first=True), "pk")
    taken = []
    for pk in list(found.values_list("pk", flat=True)[:most]):
        # Of several senders that read the same rows, one updates each.
        if free.filter(pk=pk).update(sender=sender, sender_until=_from_now(_LEASE)):
            taken.append(pk)
    return taken


def next_job(alias: str, sender: str, webhook: int) -> Job | None:
    """The next delivery of a webhook that this sender has, and has for a request's time from here
    on. None if there is none, or another one has it."""
    mine = Webhook.objects.using(alias).filter(pk=webhook, sender=sender, sender_until__gt=Now())
    with transaction.atomic(using=alias):
        if not mine.update(sender_until=_from_now(_LEASE)):
            return None
        row = Webhook.objects.using(alias).get(pk=webhook)
        due = (
            WebhookDelivery.objects.using(alias)
            .filter(webhook=webhook, state=_PENDING, due_at__lte=Now())
            .order_by("pk")
        )
        rests = row.rests_until is not None and row.rests_until > timezone.now()
        if not row.enabled or rests:
            due = due.filter(by_hand=True)
        delivery = due.first()
    return None if delivery is None else Job(row, delivery)


def release(alias: str, sender: str, webhook: int) -> None:
    """Give a webhook back, behind the others that wait."""
    Webhook.objects.using(alias).filter(pk=webhook, sender=sender).update(
        sender="", sender_until=Now()
    )


def rest(alias: str, webhook: int) -> None:
    """Let a webhook rest as long as after many failures."""
    Webhook.objects.using(alias).filter(pk=webhook).update(
        rests_until=timezone.now() + timedelta(seconds=RESTS[-1])
    )


def record(alias: str, job: Job, answer: Answer, chance: float) -> None:
    """Write what came of an attempt: to the delivery, and to its webhook, which rests or is
    disabled where that is due."""
    with transaction.atomic(using=alias):
        delivery = _locked(WebhookDelivery, alias, job.delivery.pk)
        webhook = _locked(Webhook, alias, job.webhook.pk)
        if delivery is None or webhook is None:
            return  # deleted meanwhile
        _write(delivery, webhook, answer, chance)


def _write(delivery: WebhookDelivery, webhook: Webhook, answer: Answer, chance: float) -> None:
    now = timezone.now()
    before = delivery.attempts if isinstance(delivery.attempts, list) else []
    delivery.attempts = [*before, _noted(answer, now)][-ATTEMPTS_KEPT:]
    if answer.delivered:
        delivery.state, delivery.finished_at = WebhookDelivery.State.DELIVERED, now
    else:
        delivery.failures += 1
        delay = delay_after(delivery.failures, chance, answer.retry_after)
        if delay is None or delivery.by_hand or answer.gone:
            delivery.state, delivery.finished_at = WebhookDelivery.State.FAILED, now
        else:
            delivery.due_at = now + timedelta(seconds=delay)
    delivery.save(update_fields=["attempts", "state", "finished_at", "failures", "due_at"])
    if answer.delivered:
        if webhook.failures:
            webhook.failures, webhook.failing_since, webhook.rests_until = 0, None, None
            webhook.save(update_fields=["failures", "failing_since", "rests_until"])
        return
    if answer.gone:
        disable(webhook, "The receiver answered 410 Gone: it wants no more requests.")
    if delivery.by_hand:
        return
    webhook.failures += 1
    webhook.failing_since = webhook.failing_since or now
    rest = rest_after(webhook.failures, chance, answer.retry_after)
    webhook.rests_until = now + timedelta(seconds=rest)
    webhook.save(update_fields=["failures", "failing_since", "rests_until"])
    if now - webhook.failing_since >= FAILING:
        disable(webhook, f"Every request failed for a day, the last one with: {answer.text}.")


def disable(webhook: Webhook, reason: str) -> None:
    """Disable a webhook, with the reason in a sentence. One that is disabled keeps its reason."""
    changed = Webhook.objects.using(webhook._state.db).filter(pk=webhook.pk, enabled=True)
    if changed.update(enabled=False, disabled_reason=reason):
        logger.error(
            "webhook %s (%s) is disabled: %s",
            webhook.name,
            webhook.pk,
            reason,
            extra={"action": "webhook_disabled"},
        )


def _noted(answer: Answer, at: datetime) -> dict[str, Any]:
    return {
        "at": at.isoformat(timespec="milliseconds"),
        "status": answer.status,
        "error": answer.error,
        "excerpt": answer.excerpt,
        "seconds": round(answer.seconds, 3),
    }


def _locked(model: Any, alias: str, pk: int) -> Any:
    rows = model.objects.using(alias)
    features = connections[alias].features
    if features.has_select_for_update:
        # New deliveries refer to their webhook, and need not wait.
        rows = rows.select_for_update(no_key=features.has_select_for_no_key_update)
    return rows.filter(pk=pk).first()


def _free() -> Q:
    # So far ahead only where it was written before the clock was set back.
    ahead = Q(sender_until__gt=_from_now(2 * _LEASE))
    return Q(sender_until=None) | Q(sender="") | Q(sender_until__lte=Now()) | ahead


def _from_now(delta: timedelta) -> ExpressionWrapper[Any]:
    return ExpressionWrapper(Now() + delta, output_field=DateTimeField())


# --- the past -------------------------------------------------------------------------------------


def prune(alias: str) -> int:
    """Delete some deliveries that were finished longer ago than the log is kept, and those that
    disabled webhooks have left for so long. Returns how many; 0 when none is left."""
    before = timezone.now() - kept_for()
    old = Q(finished_at__lt=before) | Q(
        state=_PENDING, webhook__enabled=False, created_at__lt=before
    )
    rows = WebhookDelivery.objects.using(alias)
    found = list(rows.filter(old).order_by("pk").values_list("pk", flat=True)[:_PRUNED_AT_ONCE])
    if not found:
        return 0
    return rows.filter(pk__in=found).delete()[0]


def kept_for() -> timedelta:
    """How long finished deliveries are kept: as long as RETENTION keeps changes, at least a day,
    and three days where that is a size alone."""
    kept = {name: n for name, n in conf.current().RETENTION.items() if name != "gigabytes"}
    if not kept:
        return _KEPT_BY_SIZE
    return max(timedelta(**kept), timedelta(days=1))
