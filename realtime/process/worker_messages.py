"""The messages between servers and workers, and their channels."""

from __future__ import annotations

import msgspec

from realtime.wal.entry import Relation, WalRow

# The channel that `manage.py runworker` is given.
WORKERS = "realtime"
ANSWER_TYPE = "realtime.rows"


def box_of(worker: str) -> str:
    """The channel of one worker."""
    return f"realtime.worker.{worker}"


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The entries after the requested position, with the relations they name; or an error.

    No rows and no error: the next entry has been pruned.
    """

    id: int
    rows: list[WalRow]
    relations: list[Relation]
    error: str = ""


encode_answer = msgspec.msgpack.Encoder().encode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
