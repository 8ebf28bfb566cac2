"""One joined topic of a socket: its state."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from realtime.protocol.join import JoinConfig
from realtime.protocol.serializer import PREFIX
from realtime.session.quotas import QuotaChain
from realtime.topics.rights import NONE, TopicRights
from realtime.util.token_bucket import TokenBucket


class Phase(enum.Enum):
    JOINING = "joining"
    JOINED = "joined"
    GONE = "gone"


@dataclass(eq=False, slots=True)
class Channel:
    """One joined topic. A rejoin is another Channel, so identity tells old from new."""

    topic: str
    join_ref: str | None
    join_reply_ref: str | None
    config: JoinConfig
    token: str | None
    presence_limit: TokenBucket
    phase: Phase = Phase.JOINING
    expires_at: float | None = None
    rights: TopicRights = NONE
    #: What the channel is known by where it is present.
    key: str = ""
    #: Whether the client is told who is present.
    watching: bool = False
    # What its subject shares with the subject's other channels.
    purse: QuotaChain | None = None

    @property
    def name(self) -> str:
        """The topic as people and policies know it, without `realtime:`."""
        return self.topic[len(PREFIX) :]
