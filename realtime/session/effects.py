"""What a session wants done, and the channels it speaks of.

Pure values: a session returns them, the consumer performs them. They have a room of their own
because both sides need them and neither needs the other.
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
    """Unsubscribe this channel, now: nothing may be delivered to it any more."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Renew:
    """Subscribe this channel again as the subject of `token`, then call `renewed` or `ended`."""

    channel: Channel
    token: str


@dataclass(frozen=True, slots=True)
class SendBroadcast:
    """Relay to the topic, then call `broadcast`. `event` None: `payload` is the whole payload of a
    text frame. `frame` is what is to be answered. `persist`: store it, so that it is part of the
    log and can be replayed."""

    channel: Channel
    event: str | None
    payload: bytes
    encoding: Encoding
    frame: ClientMessage
    persist: bool = False


@dataclass(frozen=True, slots=True)
class Track:
    """Be present with this meta, a JSON object as text; None: no more. When everybody here has
    been told, call `tracked`."""

    channel: Channel
    meta: bytes | None
    frame: ClientMessage


@dataclass(frozen=True, slots=True)
class WatchPresence:
    """The client wants to be told who is present: call `presence` with it."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the log: an action key and a text without secrets. `limit` names the limit
    that was met and whose it is."""

    action: str
    text: str
    limit: str = ""


Effect = Send | Close | Join | Leave | Renew | SendBroadcast | Track | WatchPresence | Note
