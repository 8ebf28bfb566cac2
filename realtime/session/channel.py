"""One joined topic of a socket: its state."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from realtime.protocol.join import JoinConfig
from realtime.protocol.serializer import PREFIX, ClientMessage
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
    #: When a join that waits for its bindings is given up, as `now`; None for one that does not.
    join_until: float | None = None
    #: Whether its token has not taken effect yet, as it replaces another.
    renewing: bool = False
    #: Messages that came before the join was answered or the token took effect, in order: each with
    #: the time it came and its size.
    pending: list[tuple[ClientMessage, float, int]] = field(default_factory=list)
    #: How many of them came before a token that came while the channel was joining.
    ahead_of_token: int | None = None
    #: Bytes of its join, of its pending messages and of a later token.
    size: int = 0
    #: Bytes of the last token that came after the join.
    token_size: int = 0
    #: When the token expires, in seconds since 1970.
    expires_at: float | None = None
    rights: TopicRights = NONE
    #: The name of its presence; "" for one that the server chooses when it is tracked first.
    key: str = ""
    #: Whether the client gets presence events.
    shows_presence: bool = False
    #: Whether bindings of it deliver changes.
    follows: bool = False
    #: Whether its client knows that changes wait and no process numbers them.
    is_told_of_waiting: bool = False
    #: The quotas of its subject, shared with the subject's other channels.
    quotas: QuotaChain | None = None

    @property
    def name(self) -> str:
        """The topic without `realtime:`, as policies name it."""
        return self.topic[len(PREFIX) :]
