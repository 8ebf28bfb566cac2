"""Cursors: the position in the log that a client names with `since`.

A client names an event by its `seq` (an integer or its digits), by "<epoch>:<seq>", or by its
`commit_timestamp`. Pure: whether the log still keeps that position is not decided here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SEQ = re.compile(r"[0-9]{1,19}", re.ASCII)
_EPOCH_SEQ = re.compile(r"([0-9A-Za-z_-]{1,64}):([0-9]{1,19})", re.ASCII)
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?",
    re.ASCII,
)
_SEQ_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last event a client has: its `seq`, or its commit time in microseconds since 1970.

    With neither, the value that the client sent could not be read, and the client has to resync.
    `epoch` is None when the client named none.
    """

    seq: int | None = None
    commit_us: int | None = None
    epoch: str | None = None


def parse_cursor(value: Any) -> Cursor | None:
    """The cursor in a binding's `since`. None for null, which means no replay; never raises.

    A value that cannot be read gives Cursor(), which makes the client resync: to start live without
    a message would lose events.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return _at(value)
    if not isinstance(value, str):
        return Cursor()
    text = value.strip()
    if _SEQ.fullmatch(text):
        return _at(int(text))
    if pair := _EPOCH_SEQ.fullmatch(text):
        return _at(int(pair[2]), pair[1])
    if _TIMESTAMP.fullmatch(text):
        return _timestamp(text)
    return Cursor()


def _at(seq: int, epoch: str | None = None) -> Cursor:
    return Cursor(seq=seq, epoch=epoch) if 0 <= seq <= _SEQ_MAX else Cursor()


def _timestamp(text: str) -> Cursor:
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return Cursor(commit_us=(moment - _EPOCH) // timedelta(microseconds=1))
    except (ValueError, OverflowError):
        return Cursor()
