"""Errors as clients get them: the reply text or the close code of each.

Owns the texts and codes; raises nothing and sends nothing. Three choices differ from the official
server on purpose:

* Throttling is a reply and never `phx_close`: the JavaScript client never rejoins a channel after
  a close, so one busy second would silence it for good.
* An expired token or a lost permission ends the channel with `phx_error`: the client rejoins by
  itself, with a fresh token if it has one, and is refused by reply if it has none.
* A broadcast without permission gets an error reply if the client asked for replies.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class CloseCode(enum.IntEnum):
    """Codes the server closes a socket with. Clients reconnect after any of them."""

    RESTART = 1012
    TOKEN_REFUSED = 4401
    ORIGIN_REFUSED = 4403
    NO_HEARTBEAT = 4408
    FRAME_TOO_LARGE = 4413
    TOO_MANY = 4429
    SLOW_CONSUMER = 4430

    @property
    def meaning(self) -> str:
        """A short text, which fits a close frame's 123 bytes."""
        return _MEANINGS[self]


_MEANINGS = {
    CloseCode.RESTART: "server restart",
    CloseCode.TOKEN_REFUSED: "token refused or expired",
    CloseCode.ORIGIN_REFUSED: "origin refused",
    CloseCode.NO_HEARTBEAT: "no heartbeat for 60 s",
    CloseCode.FRAME_TOO_LARGE: "frame too large",
    CloseCode.TOO_MANY: "too many connections or joins",
    CloseCode.SLOW_CONSUMER: "slow consumer: resume by since",
}


class WireError(enum.Enum):
    """The errors of channels: a code ("" for none) and a text.

    A text may hold fields in braces, which `reason` and `text` fill. The texts of token errors
    belong to `auth_rls`; `token_reason` makes replies of them.
    """

    UNMATCHED_TOPIC = ("", "unmatched topic")
    TOPIC_NAME_REQUIRED = ("TopicNameRequired", "You must provide a topic name")
    UNAUTHORIZED = (
        "Unauthorized",
        "You do not have permissions to read from this Channel topic: {topic}",
    )
    PERMISSION_LOST = (
        "Unauthorized",
        "You no longer have permission to read from this Channel topic: {topic}",
    )
    WRITE_UNAUTHORIZED = (
        "Unauthorized",
        "You do not have permissions to write to this Channel topic: {topic}",
    )
    PRIVATE_ONLY = ("PrivateOnly", "This project only allows private channels")
    TOO_MANY_CHANNELS = ("ChannelRateLimitReached", "Too many channels")
    TOO_MANY_JOINS = ("ClientJoinRateLimitReached", "Too many joins per second")
    TOO_MANY_MESSAGES = ("MessageRateLimitReached", "Too many messages per second")
    TOO_MANY_PRESENCE_MESSAGES = ("PresenceRateLimitReached", "Client presence rate limit exceeded")
    PAYLOAD_TOO_LARGE = ("", "payload_size_exceeded")
    TOPIC_NAME_TOO_LONG = ("TopicNameTooLong", "A topic name has at most {most} characters")
    TRACK_UNAUTHORIZED = (
        "Unauthorized",
        "You do not have permissions to track presence on this Channel topic: {topic}",
    )
    TRACK_KEY_RESERVED = (
        "",
        "Presence key {key} is reserved: clients could not read it; choose another",
    )
    TRACK_KEY_TOO_LONG = ("", "Presence key is too long: at most {most} characters")
    TRACK_NOT_STORED = ("", "Presence could not be stored: {detail}")
    BROADCAST_NOT_STORED = ("", "The broadcast could not be stored: {detail}")
    EVENT_NAME_TOO_LONG = ("", "An event name has at most {most} characters")
    TRACK_NOT_A_MAP = ("", "Presence track payload must be a map")
    TRACK_TOO_LARGE = ("", "Track message size exceeded")
    REPLAY_INVALID = ("UnableToReplayMessages", "Replay params are not valid")
    REPLAY_PUBLIC = ("UnableToReplayMessages", "Replay is not allowed for public channels")
    CHANGES_TIMEOUT = (
        "PostgresChangesSubscribeTimeout",
        "Timed out after {timeout_ms}ms waiting for the postgres_changes subscription",
    )
    CHANGES_REFUSED = ("RealtimeDisabledForConfiguration", "{detail}")
    DATABASE_UNREACHABLE = (
        "UnableToConnectToProject",
        "Realtime was unable to connect to the project database",
    )
    RESTARTING = ("RealtimeRestarting", "Realtime is restarting, please standby")
    UNKNOWN = ("", "Unknown Error on Channel")

    @property
    def code(self) -> str:
        return self.value[0]

    def text(self, **fields: object) -> str:
        """The text alone, as a `system` message carries it. Raises KeyError for a missing field."""
        return self.value[1].format(**fields)

    def reason(self, **fields: object) -> str:
        """The `reason` of an error reply: "Code: text". Raises KeyError for a missing field."""
        return token_reason(self.code, self.text(**fields))

    def response(self, **fields: object) -> dict[str, str]:
        """The `response` of an error reply."""
        return {"reason": self.reason(**fields)}


def token_reason(code: str, text: str) -> str:
    """The `reason` of an error reply: "code: text", or the text alone without a code."""
    return f"{code}: {text}" if code else text


# --- postgres_changes ---------------------------------------------------------------------------

SUBSCRIBED = "Subscribed to PostgreSQL"
DISCONNECT = "Server requested disconnect"
REPLICATION_READY = "Replication connection established"
SELECT_ON_WILDCARD = (
    "Column selection is not supported for wildcard subscriptions. "
    "Provide an explicit schema and table name."
)
SELECT_NOT_A_LIST = (
    "Error parsing `select` params: expected a list of column name strings, "
    'e.g. select: ["col1", "col2"]'
)
_UNABLE = "Unable to subscribe to changes with given parameters."
_SECRETS = ("user_token", "auth_token", "access_token")


def filter_unreadable(detail: str) -> str:
    """The text for a filter that cannot be read."""
    return f"Error parsing `filter` params: {detail}"


def no_parameters(binding: Mapping[str, Any]) -> str:
    """The text for a binding without schema and table. A token in it is not repeated."""
    shown = "<redacted>" if any(key in binding for key in _SECRETS) else inspect(binding)
    return (
        "No subscription params provided. "
        f"Please provide at least a `schema` or `table` to subscribe to: {shown}"
    )


def not_published(parameters: str) -> str:
    """The text for a table that is not published, given `connect_parameters`."""
    return (
        f"{_UNABLE} Please check Realtime is enabled for the given connect parameters: "
        f"[{parameters}]"
    )


def subscribing_failed(parameters: str, exception: str) -> str:
    """The text for a binding its table refuses, given `connect_parameters` and why."""
    return (
        f"{_UNABLE} An exception happened so please check your connect parameters: "
        f"[{parameters}]. Exception: {exception}"
    )


def subscription_ended(parameters: str, reason: str) -> str:
    """The text for a subscription that the server ends, given `connect_parameters` and why."""
    return f"Subscription ended: {reason} [{parameters}]"


def connect_parameters(
    event: str,
    schema: str,
    table: str,
    filters: Sequence[tuple[str, str, str, bool]],
    select: Sequence[str] | None,
) -> str:
    """A binding as the official server prints it; a filter is (column, op, value, negated)."""
    columns = None if select is None else list(select)
    return (
        f"event: {event}, schema: {schema}, table: {table}, "
        f"filters: {inspect(list(filters))}, select: {inspect(columns)}"
    )


_LONGEST_SHOWN = 1_000


def inspect(value: Any) -> str:
    """A JSON value (or a tuple) in Elixir's notation, which the official texts quote.

    Cut at 1,000 characters: it is an echo of what a client sent.
    """
    text = _inspect(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _inspect(value: Any) -> str:
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are Elixir's but for the slash of interpolation.
        return msgspec.json.encode(value).decode().replace("#{", "\\#{")
    if isinstance(value, Mapping):
        pairs = (f"{_inspect(key)} => {_inspect(value[key])}" for key in sorted(value))
        return f"%{{{', '.join(pairs)}}}"
    if isinstance(value, tuple):
        return f"{{{', '.join(map(_inspect, value))}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_inspect, value))}]"
    return str(value)
