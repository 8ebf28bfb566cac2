"""Keeps credentials out of logs.

Clients of this protocol put keys into the query string, and servers log query strings. This module
recognises credentials in text, and has a logging filter that replaces them in every part of a
record. It never drops a record, and never changes one without a credential.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

#: Loggers of the supported servers that may write a request's path or headers.
SERVER_LOGGERS: Final = (
    "daphne",
    "daphne.http_protocol",
    "daphne.server",
    "daphne.ws_protocol",
    "django.channels.server",
    "django.request",
    "django.server",
    "hypercorn.access",
    "hypercorn.error",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.asgi",
    "uvicorn.error",
    "_granian",
    "granian.access",
)

BLOT: Final = "[redacted]"

_NAMES: Final = (
    r"(?:access_token|user_token|refresh_token|token|apikey|api_key|x-api-key|sessionid)"
)
_QUOTE: Final = r"\\{0,4}[\"']"
_VALUE: Final = r"[^\s&;#\"'\\,<>(){}\[\]|]+"

# No text makes these slow: every repetition is bounded, or ends where the next may begin.
_PATTERNS: Final = (
    # ?token=...  and the same escaped once more, as part of another address
    re.compile(
        rf"(?:(?<![a-z0-9])|(?<=%3F)|(?<=%26))({_NAMES}(?:=|%3D)[\"']?)({_VALUE})", re.IGNORECASE
    ),
    # "access_token": "..."  and ASGI's (b'x-api-key', b'...')
    re.compile(
        rf"({_QUOTE}{_NAMES}{_QUOTE}\s{{0,4}}[:,]\s{{0,4}}b?{_QUOTE})([^\"'\\]+)", re.IGNORECASE
    ),
    re.compile(rf"(\b(?:x-api-key|apikey)\s{{0,4}}:\s{{0,4}})({_VALUE})", re.IGNORECASE),
    re.compile(r"(\bBearer(?:\s|%20|\+){1,4})([a-z0-9._~/=-][a-z0-9._~+/=-]*)", re.IGNORECASE),
    # A token or a secret key is recognised by its own form, whatever precedes it.
    re.compile(r"()(?<![a-z0-9_-])(eyJ[a-z0-9_-]{4,}\.[a-z0-9_.-]*)", re.IGNORECASE),
    re.compile(r"()(?<![a-z0-9_-])(sb_secret_[a-z0-9_-]+)", re.IGNORECASE),
)


def redact(text: str) -> str:
    """`text` with every credential in it replaced by "[redacted]"."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{BLOT}", text)
    return text


class RedactCredentials(logging.Filter):
    """A filter that lets every record through, without its credentials.

    The parts of a record are cleaned first, and its whole text only where that is not enough,
    because some formatters read `args` themselves and need as many as there were.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            self._clean_parts(record)
            self._clean_whole(record)
            self._clean_traces(record)
        except Exception:
            # An object whose own __str__ fails. Logging would fail on it too, and print it.
            record.msg = f"A log record of {record.name} could not be checked for credentials"
            record.args = None
            record.exc_info = record.exc_text = record.stack_info = None
        return True

    def _clean_parts(self, record: logging.LogRecord) -> None:
        if not record.args:
            # With arguments it is a format: "token=%s" holds no token, and needs its %s.
            record.msg = _cleaned(record.msg)
        elif isinstance(record.args, Mapping):
            record.args = {name: _cleaned(value) for name, value in record.args.items()}
        else:
            record.args = tuple(_cleaned(value) for value in record.args)
        for name, value in record.__dict__.items():
            if name not in _OWN_FIELDS:
                record.__dict__[name] = _cleaned(value)

    def _clean_whole(self, record: logging.LogRecord) -> None:
        """Clean what is visible in the whole message alone: a name in the format with its value in
        the arguments, and arguments that are not text."""
        try:
            whole = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # Arguments that do not fit the format; logging will print both to stderr.
            whole = f"{record.msg} {record.args}"
            if redact(whole) == whole:
                return
        clean = redact(whole)
        if clean != whole:
            record.msg, record.args = clean, None
            # uvicorn's coloured twin of the format, which would now lack its arguments.
            record.__dict__.pop("color_message", None)

    def _clean_traces(self, record: logging.LogRecord) -> None:
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        if record.exc_info and not record.exc_text:
            text = logging.Formatter().formatException(record.exc_info)
            if redact(text) != text:
                record.exc_text = redact(text)
        elif record.exc_text:
            record.exc_text = redact(record.exc_text)


# Fields logging itself fills, none of which come from a request; and those cleaned by name.
_OWN_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__)


def _cleaned(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


def install(*names: str) -> None:
    """Puts the filter on these loggers, by default on `SERVER_LOGGERS`. Doing it again changes
    nothing. A filter of a logger does not see its children's records, so each is named."""
    for name in names or SERVER_LOGGERS:
        target = logging.getLogger(name)
        if not any(isinstance(present, RedactCredentials) for present in target.filters):
            target.addFilter(RedactCredentials())
