"""Receipts: an opaque text by which who writes knows the changes of a transaction again.

Owns the table `realtime_receipt`: for each user who wrote in a transaction with a receipt, the text
that belongs to the entries which name the transaction and the user. A row is written by the
transaction itself, so a rollback leaves none. What is shown of it, and to whom, is decided where
events are delivered (`realtime.event_log.event.DatabaseEvent.tx_of`).
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

from realtime.conf import settings
from realtime.wal.actor_capture import ActorWrapper, wrapper_of
from realtime.wal.vendor import vendor_of

# Bytes of a text, before they are written in letters and digits.
_RANDOM_BYTES = 16
# Characters of a user's name. An index of PostgreSQL takes no row above 2,700 bytes.
_LONGEST_NAME = 512

# Of a log that has begun no epoch yet, "" is kept.
_INSERT = """
INSERT INTO realtime_receipt (txid, actor, text, epoch, after_seq)
VALUES ({txid}, %s, %s, COALESCE((SELECT h.epoch FROM realtime_head AS h WHERE h.id = 1), ''),
    COALESCE((SELECT h.seq FROM realtime_head AS h WHERE h.id = 1), 0))
ON CONFLICT (txid, actor) DO UPDATE SET text = excluded.text, epoch = excluded.epoch,
    after_seq = excluded.after_seq, taken_at = excluded.taken_at
"""

#: SQL that joins the receipt `r` of an entry `w`. `{seq}` is the entry's number. The ids of
#: transactions come again in another server, to which the log may have been restored: a receipt
#: belongs to entries behind the position at which it was taken, and to the epoch of that time.
RECEIPT_OF = """
LEFT JOIN realtime_receipt AS r ON r.txid = w.txid AND r.actor = w.actor AND r.after_seq < {seq}
    AND r.epoch IN ('', (SELECT h.epoch FROM realtime_head AS h WHERE h.id = 1))
"""

# Where receipts are noted when they are committed, for the request that is being answered.
_noted: ContextVar[deque[str] | None] = ContextVar("realtime_receipts", default=None)


class _Taken:
    """Called when the transaction of a receipt is committed. Django drops it with the savepoint or
    the transaction in which the receipt was taken."""

    def __init__(self, text: str, noted: deque[str] | None) -> None:
        self.text = text
        self._noted = noted

    def __call__(self) -> None:
        if self._noted is not None and self.text not in self._noted:
            self._noted.append(self.text)


def receipt() -> str:
    """The receipt of the present transaction: an opaque text, the same for the whole transaction.

    The change frames of the transaction carry it as `tx` to those users who wrote them, and to
    nobody else; `ReceiptMiddleware` sends it with the response. It may be taken before, between or
    after the writes, and several times. What is rolled back has none: a receipt that was taken in a
    savepoint is void if that is rolled back.

    Raises TransactionManagementError outside of `transaction.atomic()` on the database whose
    changes are captured, and what the database raises.
    """
    alias = settings.DATABASE
    connection = connections[alias]
    if not connection.in_atomic_block:
        raise TransactionManagementError(
            "realtime.receipt() is taken inside of the transaction whose changes it names. Call it "
            f"within transaction.atomic({'' if alias == 'default' else f'using={alias!r}'}), "
            "together with the writes."
        )
    vendor_of(connection)
    wrapper = wrapper_of(connection)
    text = _present(wrapper)
    if text is None:
        text = secrets.token_urlsafe(_RANDOM_BYTES)
        wrapper.recorded.clear()
    # Who would write now has a part in it too: the writes may be still to come.
    wrapper.actor()
    for name in wrapper.users - wrapper.recorded:
        _record(wrapper, name, text)
    transaction.on_commit(_Taken(text, _noted.get()), using=alias)
    wrapper.on_user = partial(_record_late, wrapper)
    return text


def _record_late(wrapper: ActorWrapper, name: str) -> None:
    """This user is about to write in a transaction of which a receipt was taken before."""
    text = _present(wrapper)
    if text is None:
        wrapper.on_user = None
    else:
        _record(wrapper, name, text)


def _present(wrapper: ActorWrapper) -> str | None:
    """The receipt that was taken in the present transaction and not rolled back."""
    for _, callback, *_ in wrapper.connection.run_on_commit:
        if isinstance(callback, _Taken):
            return callback.text
    return None


def _record(wrapper: ActorWrapper, name: str, text: str) -> None:
    wrapper.recorded.add(name)
    if len(name) <= _LONGEST_NAME:
        txid, parameters = wrapper.transaction_id()
        with wrapper.connection.cursor() as cursor:
            cursor.execute(_INSERT.format(txid=txid), [*parameters, str(name), text])


@contextmanager
def noting(noted: deque[str]) -> Iterator[None]:
    """Note the receipts that are taken in the block, each when its transaction is committed."""
    token = _noted.set(noted)
    try:
        yield
    finally:
        _noted.reset(token)
