"""The audit log: policies applied, denied and bypassed, as log records.

Owns the logger `auth_rls.events` and the content of its records: the subject (the Django user's
key and the role), the permission, the policies and the reason. Never a row's value or key, a
token, or a claim. It is off unless AUTH_RLS["LOG_EVENTS"] turns it on, and the number of records
of each kind is bounded, so that many requests do not flood the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Final

from django.db import models

from auth_rls import conf, forks
from auth_rls.access.record_limit import RecordLimit
from auth_rls.access.snapshot import permission_name
from auth_rls.policy.rules import PolicyRule
from auth_rls.predicates.predicate import FALSE, Predicate
from auth_rls.subjects.subject import SERVICE_ROLE, Subject

# The name is documented and does not follow the module.
logger = logging.getLogger("auth_rls.events")

APPLIED, DENIED, BYPASSED = conf.EVENTS

MOST: Final = 100
"""Records of a kind in a period, per process."""
PERIOD: Final = 60.0
"""Seconds."""


_LEVELS: Final = {APPLIED: logging.DEBUG, DENIED: logging.INFO, BYPASSED: logging.INFO}
LIMIT = RecordLimit(MOST, PERIOD)
"""Of the records of this process."""
_lock = threading.Lock()
_quiet: ContextVar[bool] = ContextVar("auth_rls.events.quiet", default=False)


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


forks.in_child(_renew_lock)


@dataclass(frozen=True, slots=True)
class RlsEvent:
    """One record. `action` is policy_applied, policy_denied or policy_bypassed; `user_id` is None
    for a subject without a Django user; `suppressed` counts the records of this kind that were
    left out before it."""

    action: str
    permission: str
    role: str
    user_id: Any
    policies: tuple[str, ...]
    reason: str
    suppressed: int = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress records in the block: explanations and trials are not accesses."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def bypassed(subject: Subject, model: type[models.Model], action: str) -> None:
    """Record that the subject bypasses the policies."""
    reason = "service role" if subject.role == SERVICE_ROLE else "superuser"
    _record(BYPASSED, subject, model, action, reason)


def judged(
    subject: Subject,
    model: type[models.Model],
    action: str,
    concerning: Iterable[PolicyRule],
    predicate: Predicate,
) -> None:
    """Record the outcome of the rules that concern the subject."""
    if not (_wanted(APPLIED) or _wanted(DENIED)):
        return
    rules = tuple(concerning)
    if predicate != FALSE:
        _record(APPLIED, subject, model, action, "policies apply", rules)
    elif any(rule.mode == "permissive" for rule in rules):
        _record(DENIED, subject, model, action, "the policies let no row through", rules)
    else:
        _record(DENIED, subject, model, action, "no permissive policy applies", rules)


def row_denied(subject: Subject, model: type[models.Model], action: str) -> None:
    """Record that the policies that apply did not let one row through."""
    _record(DENIED, subject, model, action, "the policies do not let this row through")


def _wanted(kind: str) -> bool:
    return kind in conf.current().log_events and not _quiet.get()


def _record(
    kind: str,
    subject: Subject,
    model: type[models.Model],
    action: str,
    reason: str,
    rules: Iterable[PolicyRule] = (),
) -> None:
    level = _LEVELS[kind]
    if not _wanted(kind) or not logger.isEnabledFor(level):
        return
    with _lock:
        suppressed = LIMIT.admit(kind, time.monotonic())
    if suppressed is None:
        return
    event = RlsEvent(
        action=f"policy_{kind}",
        permission=permission_name(model, action),
        role=subject.role,
        user_id=None if subject.user is None else subject.user.pk,
        policies=tuple(rule.name for rule in rules),
        reason=reason,
        suppressed=suppressed,
    )
    names = f" by {', '.join(map(repr, event.policies))}" if event.policies else ""
    held_back = f" ({suppressed} more like it were left out)" if suppressed else ""
    logger.log(
        level,
        "%s %s for %s%s: %s%s%s",
        event.permission,
        kind,
        event.role,
        "" if event.user_id is None else f" user {event.user_id}",
        reason,
        names,
        held_back,
        extra=asdict(event),
    )
