"""What a subject may do on a topic.

Pure. A public topic is open to everybody. On a private one policies say, and nothing is the
default.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicRights:
    """Hear broadcasts, send them, see who is present, be present."""

    receive: bool = False
    send: bool = False
    view: bool = False
    track: bool = False

    @property
    def join(self) -> bool:
        """Whether there is anything to join for: broadcasts to hear or presence to see."""
        return self.receive or self.view


ALL = TopicRights(receive=True, send=True, view=True, track=True)
NONE = TopicRights()
