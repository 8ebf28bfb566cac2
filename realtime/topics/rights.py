"""What a subject may do on a topic.

Pure. On a public topic everything is allowed. On a private one policies decide, and without a
policy nothing is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicRights:
    """Receive broadcasts, send them, see who is present, be present."""

    receive: bool = False
    send: bool = False
    view: bool = False
    track: bool = False

    @property
    def join(self) -> bool:
        """Whether the topic may be joined: it needs the right to receive or to view."""
        return self.receive or self.view


ALL = TopicRights(receive=True, send=True, view=True, track=True)
NONE = TopicRights()
