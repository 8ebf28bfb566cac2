"""Errors as clients meet them: each with the one reply or close code it becomes.

Owns the texts and codes; it raises nothing and sends nothing. Three choices are deliberate and
differ from the official server (PROTOCOL section 2):

* Throttling answers by reply and never by `phx_close`: the JavaScript client never rejoins a
  channel after a close, so one busy second would silence it for good.
* An expired token, or a permission lost, ends the channel with `phx_error`: the client rejoins by
  itself, with the fresh token if it has one, and is refused by reply if it has none.
* A broadcast without permission is answered by an error reply when the client asked for one.
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

    @property
    def http_status(self) -> int | None:
        """The plain HTTP status of the same refusal before the upgrade; None if it has none."""
        return _STATUSES.get(self)


_MEANINGS = {
    CloseCode.RESTART: "server restart",
    CloseCode.TOKEN_REFUSED: "token refused or expired",
    CloseCode.ORIGIN_REFUSED: "origin refused",
    CloseCode.NO_HEARTBEAT: "no heartbeat for 60 s",
    CloseCode.FRAME_TOO_LARGE: "frame too large",
    CloseCode.TOO_MANY: "too many connections or joins",
    CloseCode.SLOW_CONSUMER: "slow consumer: resume by since",
}
_STATUSES = {
    CloseCode.TOKEN_REFUSED: 401,
    CloseCode.ORIGIN_REFUSED: 403,
    CloseCode.TOO_MANY: 429,
}


class Ends(enum.Enum):
    """What an error ends, beyond the answer to what caused it."""

    NOTHING = "nothing"
    CHANNEL = "channel"  # by phx_error, after which clients rejoin


class WireError(enum.Enum):
    """Every error a channel can be told of: its code ("" for none), its text, what it ends.

    A text may hold fields in braces, which `reason` and `text` fill. Errors of tokens are made
    by `token_reason` instead, since the token room owns their codes and texts.
    """

    UNMATCHED_TOPIC = ("", "unmatched topic", Ends.NOTHING)
    TOPIC_NAME_REQUIRED = (
        "TopicNameRequired",
        "You must provide a topic name",
        Ends.NOTHING,
    )
    MALFORMED_MESSAGE = ("MalformedMessage", "{detail}", Ends.NOTHING)
    UNAUTHORIZED = (
        "Unauthorized",
        "You do not have permissions to read from this Channel topic: {topic}",
        Ends.NOTHING,
    )
    PERMISSION_LOST = (
        "Unauthorized",
        "You no longer have permission to read from this Channel topic: {topic}",
        Ends.CHANNEL,
    )
    WRITE_UNAUTHORIZED = (
        "Unauthorized",
        "You do not have permissions to write to this Channel topic: {topic}",
        Ends.NOTHING,
    )
    PRIVATE_ONLY = (
        "PrivateOnly",
        "This project only allows private channels",
        Ends.NOTHING,
    )
    TOO_MANY_CHANNELS = ("ChannelRateLimitReached", "Too many channels", Ends.NOTHING)
    TOO_MANY_JOINS = ("ClientJoinRateLimitReached", "Too many joins per second", Ends.NOTHING)
    TOO_MANY_MESSAGES = (
        "MessageRateLimitReached",
        "Too many messages per second",
        Ends.NOTHING,
    )
    TOO_MANY_PRESENCE_MESSAGES = (
        "PresenceRateLimitReached",
        "Client presence rate limit exceeded",
        Ends.NOTHING,
    )
    PAYLOAD_TOO_LARGE = ("", "payload_size_exceeded", Ends.NOTHING)
    TOPIC_NAME_TOO_LONG = (
        "TopicNameTooLong",
        "A topic name has at most {most} characters",
        Ends.NOTHING,
    )
    TRACK_UNAUTHORIZED = (
        "Unauthorized",
        "You do not have permissions to track presence on this Channel topic: {topic}",
        Ends.NOTHING,
    )
    TRACK_KEY_RESERVED = (
        "",
        "Presence key {key} is reserved: clients could not read it; choose another",
        Ends.NOTHING,
    )
    TRACK_KEY_TOO_LONG = (
        "",
        "Presence key is too long: at most {most} characters",
        Ends.NOTHING,
    )
    TRACK_NOT_STORED = ("", "Presence could not be stored: {detail}", Ends.NOTHING)
    BROADCAST_NOT_STORED = ("", "The broadcast could not be stored: {detail}", Ends.NOTHING)
    TRACK_NOT_A_MAP = ("", "Presence track payload must be a map", Ends.NOTHING)
    TRACK_TOO_LARGE = ("", "Track message size exceeded", Ends.NOTHING)
    REPLAY_FAILED = (
        "UnableToReplayMessages",
        "Realtime was unable to replay messages",
        Ends.NOTHING,
    )
    REPLAY_INVALID = (
        "UnableToReplayMessages",
        "Replay params are not valid",
        Ends.NOTHING,
    )
    REPLAY_PUBLIC = (
        "UnableToReplayMessages",
        "Replay is not allowed for public channels",
        Ends.NOTHING,
    )
    CHANGES_TIMEOUT = (
        "PostgresChangesSubscribeTimeout",
        "Timed out after {timeout_ms}ms waiting for the postgres_changes subscription",
        Ends.NOTHING,
    )
    DATABASE_UNREACHABLE = (
        "UnableToConnectToProject",
        "Realtime was unable to connect to the project database",
        Ends.NOTHING,
    )
    RESTARTING = (
        "RealtimeRestarting",
        "Realtime is restarting, please standby",
        Ends.NOTHING,
    )
    UNKNOWN = ("", "Unknown Error on Channel", Ends.NOTHING)

    @property
    def code(self) -> str:
        return self.value[0]

    @property
    def ends(self) -> Ends:
        return self.value[2]

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
    """The `reason` of an error reply for a code and a text that stand in no table here."""
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
