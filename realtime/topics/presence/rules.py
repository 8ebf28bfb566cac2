"""Whether somebody may be present with this key and this meta, as far as their shape says.

Pure. Permission and rates are not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from realtime.protocol.errors import WireError
from realtime.topics.presence.state import RESERVED_KEYS, clean_meta

LONGEST_KEY = 1_024

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Refused:
    """Why not, with what its text needs."""

    error: WireError
    fields: Mapping[str, object] = field(default_factory=dict)


def check_track(key: str, raw: bytes, most: int | None) -> bytes | Refused:
    """The meta in the payload of a `track`, as JSON text: numbers that no double holds are passed
    on digit for digit. `most` bounds its bytes."""
    if key in RESERVED_KEYS:
        return Refused(WireError.TRACK_KEY_RESERVED, {"key": repr(key)})
    if len(key) > LONGEST_KEY:
        return Refused(WireError.TRACK_KEY_TOO_LONG, {"most": LONGEST_KEY})
    try:
        meta = clean_meta(bytes(_decode(raw or b"{}").get("payload", b"{}")))
    except (ValueError, msgspec.MsgspecError):
        return Refused(WireError.TRACK_NOT_A_MAP)
    if most is not None and len(meta) > most:
        return Refused(WireError.TRACK_TOO_LARGE)
    return meta
