"""What servers and workers say to each other, and the channels they say it on."""

from __future__ import annotations

import msgspec

from realtime.wal.entry import Relation, WalRow

# The name that `manage.py runworker` is given, and the box of one worker.
WORKERS = "realtime"
ANSWER_TYPE = "realtime.rows"


def box_of(worker: str) -> str:
    """The channel of one worker."""
    return f"realtime.worker.{worker}"


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Entries right after what was asked for, with the relations they name; or why there are none.

    No rows and no error: the next entry is not kept any more.
    """

    id: int
    rows: list[WalRow]
    relations: list[Relation]
    error: str = ""


encode_answer = msgspec.msgpack.Encoder().encode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
