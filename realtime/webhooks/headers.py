"""The headers that a webhook adds to its requests: what they may be called and hold.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MOST = 20
MOST_CHARACTERS = 4_096
"""Of all names and values together."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Visible ASCII with single spaces and tabs inside.
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20\x09\x21-\x7e]*[\x21-\x7e])?")
# What the request says of itself, and what lies between two hops.
_OWN = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_OWN_PREFIX = "webhook-"


class BadHeaders(ValueError):
    """The headers cannot be sent; the message says why and contains no value."""


def check_headers(headers: object) -> None:
    """Raises BadHeaders for what is no object from names to values that may be sent."""
    if not isinstance(headers, Mapping):
        raise BadHeaders('Headers are a JSON object such as {"Authorization": "Bearer …"}.')
    if len(headers) > MOST:
        raise BadHeaders(f"There are at most {MOST} headers.")
    seen: set[str] = set()
    size = 0
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 100:
            raise BadHeaders(f"{str(name)[:100]!r} is no name of a header.")
        low = name.lower()
        if low in _OWN or low.startswith(_OWN_PREFIX):
            raise BadHeaders(f"The header {name} is set by the webhook itself.")
        if low in seen:
            raise BadHeaders(f"The header {name} is there twice.")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise BadHeaders(
                f"The value of the header {name} must be a text of visible ASCII characters, "
                "without line breaks."
            )
        seen.add(low)
        size += len(name) + len(value)
    if size > MOST_CHARACTERS:
        raise BadHeaders(f"All headers together have at most {MOST_CHARACTERS} characters.")
