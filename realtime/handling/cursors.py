"""The rows of handlers: their cursors, leases and failures.

A handler is run by one runner at a time, which takes it by a lease and renews that. Taking it, and
every command that moves or pauses it, raises its term. Whatever an attempt does is committed
together with `advance` or `mark_done`, which change the row only under the term that the attempt
began with: of a process that was paused, or cut off, nothing is committed any more.

Times are by the database's clock. Everything here runs in a database thread.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import (
    Case,
    DateTimeField,
    ExpressionWrapper,
    F,
    Q,
    QuerySet,
    TextField,
    Value,
    When,
)
from django.db.models.functions import Now

from realtime.handling.definition import BEGINNING
from realtime.models import DeadLetter, Handler, HandlerDone
from realtime.wal.head import Head

# A killed runner is replaced after so many seconds and the time between two looks.
LEASE_SECONDS = 15.0
_LEASE = timedelta(seconds=LEASE_SECONDS)

UNOWNED: dict[str, Any] = {"owner": "", "lease": None, "tried_seq": None, "term": F("term") + 1}
"""Of a row that no runner has: what began before is void."""


class Fenced(Exception):
    """The handler was taken by another runner, or paused or moved by a command."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a handler, valid while its row has exactly this owner and term."""

    alias: str
    name: str
    owner: str
    term: int
    # The runner before did not give it back: one of the next changes may have ended that process.
    orphaned: bool = False

    @property
    def row(self) -> QuerySet[Handler]:
        return Handler.objects.using(self.alias).filter(
            pk=self.name, owner=self.owner, term=self.term
        )


def rows(alias: str) -> dict[str, Handler]:
    """Every row, by the handler's name."""
    return {row.name: row for row in Handler.objects.using(alias)}


def create(alias: str, name: str, start: str, head: Head, oldest: int | None) -> None:
    """Make the row of a new handler, unless there is one. `oldest` is the lowest seq kept."""
    seq = head.seq
    if start == BEGINNING and oldest is not None:
        seq = oldest - 1
    new = Handler(name=name, epoch=head.epoch, seq=seq)
    Handler.objects.using(alias).bulk_create([new], ignore_conflicts=True)


def take(
    alias: str, name: str, owner: str, former: str = "", *, gone: bool = False
) -> Lease | None:
    """Take a handler that was seen with the owner `former`: it is free without one, or if the lease
    has run out, or if that one is known to be gone. None if another runner has it, or it is not to
    be run."""
    free = Q(owner=former)
    if former and not gone:
        # A lease so far ahead was given before the clock was set back.
        free &= Q(lease__lt=Now()) | Q(lease__gt=Now() + 2 * _LEASE)
    orphaned = former not in ("", owner)
    values: dict[str, Any] = {"owner": owner, "term": F("term") + 1, "lease": _from_now()}
    if not orphaned:
        values["tried_seq"] = None
    row = Handler.objects.using(alias).filter(pk=name, paused=False, stopped="")
    if not row.filter(free).update(**values):
        return None
    terms = row.filter(owner=owner).values_list("term", flat=True)
    for term in terms:
        return Lease(alias, name, owner, term, orphaned)
    return None


def renew(alias: str, owner: str, names: Collection[str]) -> None:
    """Extend the leases of an owner on these handlers."""
    theirs = Handler.objects.using(alias).filter(owner=owner, pk__in=names)
    # One by one, and in one order: each row may be locked for a moment by a handler that commits.
    for name in sorted(names):
        theirs.filter(pk=name).update(lease=_from_now())


def release(lease: Lease) -> None:
    """Let others take the handler at once. What of it still runs is void."""
    lease.row.update(**UNOWNED)


def under_new_term(lease: Lease) -> Lease:
    """The same right under a new term: what began before is void. Raises Fenced."""
    if not lease.row.update(term=F("term") + 1):
        raise Fenced(lease.name)
    return replace(lease, term=lease.term + 1)


def load(lease: Lease) -> Handler:
    """The row. Raises Fenced."""
    for row in lease.row:
        return row
    raise Fenced(lease.name)


def advance(lease: Lease, seq: int, count: int) -> None:
    """Everything up to `seq` is done, `count` changes in it. Inside the transaction of what was
    done. Raises Fenced."""
    values: dict[str, Any] = {
        "seq": seq,
        "handled": F("handled") + count,
        "attempts": 0,
        "failed_seq": None,
        "tried_seq": None,
        "last_error": "",
        "moved_at": Now(),
    }
    if not lease.row.update(**values):
        raise Fenced(lease.name)


def pass_over(lease: Lease, seq: int) -> None:
    """Everything up to `seq` is done, and nothing there concerned the handler."""
    lease.row.filter(seq__lt=seq).update(seq=seq, moved_at=Now())


def mark_done(lease: Lease, seqs: Collection[int], count: int) -> None:
    """These changes behind the cursor are done, `count` of them by the handler. Inside the
    transaction of what was done. Raises Fenced."""
    mended = When(failed_seq__in=seqs, then=Value(0))
    values: dict[str, Any] = {
        "handled": F("handled") + count,
        "attempts": Case(mended, default=F("attempts")),
        "last_error": Case(
            When(failed_seq__in=seqs, then=Value("")),
            default=F("last_error"),
            output_field=TextField(),
        ),
        "failed_seq": Case(When(failed_seq__in=seqs, then=None), default=F("failed_seq")),
        "tried_seq": None,
    }
    if not lease.row.update(**values):
        raise Fenced(lease.name)
    HandlerDone.objects.using(lease.alias).bulk_create(
        [HandlerDone(handler=lease.name, seq=seq) for seq in seqs]
    )


def is_marked(lease: Lease, seq: int) -> bool:
    """Whether this change is marked as done, or the cursor has passed it."""
    marks = HandlerDone.objects.using(lease.alias).filter(handler=lease.name, seq=seq)
    return marks.exists() or lease.row.filter(seq__gte=seq).exists()


def done_after(lease: Lease, seq: int) -> set[int]:
    """The changes behind `seq` that are marked as done."""
    found = HandlerDone.objects.using(lease.alias).filter(handler=lease.name, seq__gt=seq)
    return set(found.values_list("seq", flat=True))


def forget_done(lease: Lease, upto: int) -> None:
    """Delete the marks up to this seq, which the cursor has passed."""
    if lease.row.filter(seq__gte=upto).exists():
        marks = HandlerDone.objects.using(lease.alias)
        marks.filter(handler=lease.name, seq__lte=upto).delete()


def gather(lease: Lease, seq: int) -> None:
    """Move the cursor to `seq`, up to which every change is marked as done or did not concern the
    handler, and delete those marks. Raises Fenced."""
    with transaction.atomic(using=lease.alias):
        if not lease.row.update(seq=seq, moved_at=Now()):
            raise Fenced(lease.name)
        marks = HandlerDone.objects.using(lease.alias)
        marks.filter(handler=lease.name, seq__lte=seq).delete()


def try_alone(lease: Lease, seq: int) -> None:
    """An attempt at the change `seq` begins that may end the process. Raises Fenced."""
    if not lease.row.update(tried_seq=seq):
        raise Fenced(lease.name)


def failed(lease: Lease, seq: int, attempts: int, error: str) -> None:
    """An attempt at the change `seq` failed, its `attempts`-th. Raises Fenced."""
    values: dict[str, Any] = {
        "attempts": attempts,
        "failed_seq": seq,
        "failed_at": Now(),
        "failures": F("failures") + 1,
        "tried_seq": None,
        "last_error": error,
    }
    if not lease.row.update(**values):
        raise Fenced(lease.name)


def stop(lease: Lease, why: Handler.Stopped, error: str, seq: int | None = None) -> None:
    """Let the handler stand until a command sets it going again. Raises Fenced."""
    values: dict[str, Any] = {**UNOWNED, "stopped": why, "last_error": error}
    if seq is not None:
        values["failed_seq"] = seq
    if not lease.row.update(**values):
        raise Fenced(lease.name)


def begun_anew(alias: str, row: Handler, error: str) -> None:
    """The log has another epoch than the cursor of this row: let the handler stand."""
    same = Handler.objects.using(alias).filter(pk=row.pk, epoch=row.epoch, term=row.term)
    same.filter(stopped="").update(stopped=Handler.Stopped.EPOCH, last_error=error, **UNOWNED)


def keep_dead_letter(letter: DeadLetter, alias: str) -> None:
    """Keep a change that could not be handled, in place of what was kept of it before."""
    DeadLetter.objects.using(alias).bulk_create(
        [letter],
        update_conflicts=True,
        unique_fields=["handler", "epoch", "seq"],
        update_fields=["change", "error", "attempts", "failed_at"],
    )


def _from_now() -> ExpressionWrapper:
    return ExpressionWrapper(Now() + _LEASE, output_field=DateTimeField())
