"""Which keys and metas a `track` may have.

Pure. Permissions and rates are decided elsewhere.
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
    """The error, and the values for its text."""

    error: WireError
    fields: Mapping[str, object] = field(default_factory=dict)


def check_track(key: str, raw: bytes, most: int | None) -> bytes | Refused:
    """The meta in the payload of a `track`, as JSON text, or why it is refused.

    The text is not decoded, so numbers beyond a double keep all their digits. `most` is the limit
    of its bytes, None for no limit.
    """
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
