"""Changes of presence on their way between processes. Pure.

Each process numbers its own writes, and a message says which number it follows. So a process that
missed one knows it, and reads the members of that process from the table.
"""

from __future__ import annotations

import msgspec

Key = tuple[str, bool]
"""A topic's name and privacy: a public and a private topic of one name are separate."""


class Present(msgspec.Struct, frozen=True, array_like=True):
    """A member at one version, in its topic. See `PresenceMeta`."""

    topic: str
    private: bool
    id: str
    version: int
    key: str
    meta: bytes
    user_id: str = ""

    @property
    def topic_key(self) -> Key:
        return self.topic, self.private


class Gone(msgspec.Struct, frozen=True, array_like=True):
    """A member that left, with the last version that it had."""

    topic: str
    private: bool
    id: str
    version: int

    @property
    def topic_key(self) -> Key:
        return self.topic, self.private


class PresenceChanges(msgspec.Struct, frozen=True, array_like=True, tag="presence"):
    """What one write of a process changed: its members with number `before` became those with
    `number`. With `whole`, `put` are all of its members, and `before` does not count.

    The change was written after `seq` of the log in `epoch`: on a private topic nobody is sent it
    before rights are as of there. "" and 0 where it concerns no private topic.
    """

    process: str
    before: int
    number: int
    put: list[Present]
    gone: list[Gone]
    whole: bool = False
    epoch: str = ""
    seq: int = 0

    @property
    def weight(self) -> int:
        """How many members it changes."""
        return len(self.put) + len(self.gone)

    @property
    def bare(self) -> PresenceChanges:
        """The number alone, where the changes are too large to send: receivers read the table."""
        return PresenceChanges(self.process, self.number, self.number, [], [])


class PresenceEnded(msgspec.Struct, frozen=True, array_like=True, tag="presence_end"):
    """A process has ended and deleted its members: receivers read which processes there are."""

    process: str
