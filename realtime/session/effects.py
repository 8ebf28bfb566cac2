"""Effects: the actions that a session wants, as values.

Pure: the session returns them, and the connection performs them.
"""

from __future__ import annotations

from dataclasses import dataclass

from realtime.protocol.errors import CloseCode
from realtime.protocol.serializer import ClientMessage, Encoding
from realtime.session.channel import Channel


@dataclass(frozen=True, slots=True)
class Send:
    """A frame for this client: str is a text frame, bytes a binary one."""

    frame: str | bytes


@dataclass(frozen=True, slots=True)
class Close:
    code: CloseCode


@dataclass(frozen=True, slots=True)
class Join:
    """Authorise and subscribe this channel, then call `joined` or `refused`."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Leave:
    """Unsubscribe this channel at once: nothing is delivered to it any more."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Renew:
    """Subscribe this channel again as the subject of `token`, then call `renewed` or `ended`."""

    channel: Channel
    token: str


@dataclass(frozen=True, slots=True)
class SendBroadcast:
    """Relay to the topic, then call `relayed` or `not_stored`.

    `event` None: `payload` is the whole payload of a text frame. The reply is to `message`.
    `persist`: store the broadcast in the log, from where it can be replayed.
    """

    channel: Channel
    event: str | None
    payload: bytes
    encoding: Encoding
    message: ClientMessage
    persist: bool = False


@dataclass(frozen=True, slots=True)
class Track:
    """Track this meta, a JSON object as text; None untracks. Call `tracked` when the listeners of
    this process have the difference."""

    channel: Channel
    meta: bytes | None
    message: ClientMessage


@dataclass(frozen=True, slots=True)
class SubscribePresence:
    """Subscribe the channel to presence, then call `presence` with the state."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Note:
    """A log record: an action key and a text without secrets. `limit` is the limit that was reached
    and its scope: "<key of LIMITS>/<scope>"."""

    action: str
    text: str
    limit: str = ""


Effect = Send | Close | Join | Leave | Renew | SendBroadcast | Track | SubscribePresence | Note
